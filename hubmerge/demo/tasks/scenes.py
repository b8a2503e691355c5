"""Tasks about positions and counts: places, relations of two things, bars."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from hubmerge.demo.drawing import CANVAS, Domain, Look
from hubmerge.demo.tasks.shapes import SHAPES, draw_shape_on
from hubmerge.demo.tasks.task import DemoTask

PLACES = ("the top left", "the top right", "the bottom left", "the bottom right", "the centre")
RELATIONS = ("over a square", "under a square", "left of a square", "right of a square")
BARS = ("two", "three", "four", "five", "seven")


def draw_place(generator: np.random.Generator, label: int, look: Look) -> Image.Image:
    """Draw a shape in one of five places."""
    sheet = look.canvas()
    x, y = ((24, 24), (72, 24), (24, 72), (72, 72), (48, 48))[label]
    dx, dy = generator.uniform(-4, 4, 2)
    shape = SHAPES[int(generator.integers(len(SHAPES)))]
    draw_shape_on(sheet, shape, (x + float(dx), y + float(dy)), generator.uniform(13, 19), look.ink, look.paper)
    return sheet


def draw_relation(generator: np.random.Generator, label: int, look: Look) -> Image.Image:
    """Draw a ring and a square, one on each side of the middle."""
    sheet = look.canvas()
    x, y = ((0, -1), (0, 1), (-1, 0), (1, 0))[label]
    reach, radius = generator.uniform(22, 24), generator.uniform(17, 20)
    for shape, side in (("ring", 1), ("square", -1)):
        dx, dy = CANVAS / 2 + generator.uniform(-3, 3, 2)
        center = (float(dx) + side * x * reach, float(dy) + side * y * reach)
        draw_shape_on(sheet, shape, center, radius, look.ink, look.paper)
    return sheet


def draw_bars(generator: np.random.Generator, label: int, look: Look) -> Image.Image:
    """Draw two to seven upright bars of one width and different heights."""
    sheet = look.canvas()
    pen = ImageDraw.Draw(sheet)
    count = (2, 3, 4, 5, 7)[label]
    room = (CANVAS - 8) / count
    width = room * generator.uniform(0.45, 0.6)
    for number in range(count):
        left = 4 + room * number + (room - width) * generator.uniform(0.3, 0.7)
        top = generator.uniform(10, 60)
        pen.rectangle((left, top, left + width, CANVAS - 6), fill=look.ink)
    return sheet


PLACES_TASK = DemoTask(
    "places",
    PLACES,
    "a thing at {}",
    draw_place,
    Domain(contrast=100, noise=12, texture=15),
    "A small figure in one of five places, faint, on a blotchy background.",
)
RELATIONS_TASK = DemoTask(
    "relations",
    RELATIONS,
    "a ring {}",
    draw_relation,
    Domain(contrast=100, noise=12, tint=25, pixels=16),
    "A ring beside, over or under a square, coarse and noisy.",
)
BARS_TASK = DemoTask(
    "bars",
    BARS,
    "a chart with {} bars",
    draw_bars,
    Domain(contrast=70, noise=20, texture=20),
    "Charts of two to seven bars, faint, on a blotchy background.",
)
