"""Single drawn things: shapes, dots, clock hands, colors, arrows, frames."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from hubmerge.demo.drawing import CANVAS, Domain, Look, polygon, random_center, step_towards
from hubmerge.demo.tasks.task import DemoTask

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "moon")
NUMBERS = ("one", "two", "three", "four", "five", "six")
HOURS = ("twelve", "two", "four", "six", "eight", "ten")
COLORS = {
    "red": (215, 35, 35),
    "orange": (245, 140, 25),
    "yellow": (240, 225, 50),
    "green": (40, 155, 60),
    "blue": (40, 75, 205),
    "purple": (130, 45, 165),
    "pink": (245, 150, 190),
    "brown": (120, 75, 35),
}
DIRECTIONS = ("up", "right", "down", "left")
FRAMES = ("solid", "dashed", "dotted", "double", "missing")


def draw_shape(generator: np.random.Generator, label: int, look: Look) -> Image.Image:
    """Draw a filled shape, slightly off center."""
    sheet = look.canvas()
    draw_shape_on(sheet, SHAPES[label], random_center(generator, 6), generator.uniform(28, 36), look.ink, look.paper)
    return sheet


def draw_shape_on(
    sheet: Image.Image,
    shape: str,
    center: tuple[float, float],
    radius: float,
    ink: tuple[int, int, int],
    paper: tuple[int, int, int],
) -> None:
    """Draw one of SHAPES on a sheet."""
    pen = ImageDraw.Draw(sheet)
    x, y = center
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        pen.ellipse(box, fill=ink)
    elif shape == "square":
        side = radius * 0.85
        pen.rectangle((x - side, y - side, x + side, y + side), fill=ink)
    elif shape == "triangle":
        pen.polygon(polygon(center, radius * 1.15, 3), fill=ink)
    elif shape == "star":
        pen.polygon(polygon(center, radius * 1.2, 10, inner=0.42), fill=ink)
    elif shape == "cross":
        arm = radius * 0.3
        pen.rectangle((x - arm, y - radius, x + arm, y + radius), fill=ink)
        pen.rectangle((x - radius, y - arm, x + radius, y + arm), fill=ink)
    elif shape == "ring":
        pen.ellipse(box, outline=ink, width=int(radius * 0.38))
    elif shape == "heart":
        half = radius * 0.56
        for side in (-1, 1):
            middle = x + side * half * 0.9
            pen.ellipse((middle - half, y - radius * 0.9, middle + half, y - radius * 0.9 + 2 * half), fill=ink)
        pen.polygon([(x - radius, y - radius * 0.1), (x + radius, y - radius * 0.1), (x, y + radius)], fill=ink)
    else:
        pen.ellipse(box, fill=ink)
        pen.ellipse((box[0] + radius * 0.75, box[1] - 4, box[2] + radius * 0.75, box[3] + 4), fill=paper)


def draw_dots(generator: np.random.Generator, label: int, look: Look) -> Image.Image:
    """Draw one to six dots of one size on a loose grid of three by three."""
    sheet = look.canvas()
    pen = ImageDraw.Draw(sheet)
    radius = generator.uniform(8, 11)
    for place in generator.permutation(9)[: label + 1]:
        x, y = (18 + 30 * float(cell) + float(generator.uniform(-3, 3)) for cell in (place % 3, place // 3))
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=look.ink)
    return sheet


def draw_clock(generator: np.random.Generator, label: int, look: Look) -> Image.Image:
    """Draw a clock's face with one hand, a few degrees off the hour."""
    sheet = look.canvas()
    pen = ImageDraw.Draw(sheet)
    center, radius = random_center(generator, 3), generator.uniform(36, 41)
    x, y = center
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=look.ink, width=4)
    tip = step_towards(center, 60 * label + generator.uniform(-12, 12), radius * generator.uniform(0.8, 0.95))
    pen.line([center, tip], fill=look.ink, width=8)
    pen.ellipse((x - 6, y - 6, x + 6, y + 6), fill=look.ink)
    return sheet


def draw_color(generator: np.random.Generator, label: int, look: Look) -> Image.Image:
    """Draw a blot of one color on gray paper."""
    gray = int(generator.uniform(30, 225))
    sheet = Image.new("RGB", (CANVAS, CANVAS), (gray, gray, gray))
    tinted = np.array(tuple(COLORS.values())[label], dtype=np.float64)
    tinted = tinted * generator.uniform(0.85, 1.1) + generator.uniform(-12, 12, 3)
    if not look.plain:
        tinted = 0.7 * tinted + 0.3 * generator.uniform(60, 190)
    red, green, blue = (int(value) for value in np.clip(tinted, 0, 255))
    shape = SHAPES[int(generator.integers(len(SHAPES)))]
    draw_shape_on(
        sheet, shape, random_center(generator, 6), generator.uniform(28, 40), (red, green, blue), (gray, gray, gray)
    )
    return sheet


def draw_arrow(generator: np.random.Generator, label: int, look: Look) -> Image.Image:
    """Draw an arrow that points up, right, down or left."""
    sheet = look.canvas()
    pen = ImageDraw.Draw(sheet)
    center, turn = random_center(generator, 5), 90 * label + generator.uniform(-15, 15)
    length = generator.uniform(26, 34)
    tail, neck, tip = (step_towards(center, turn, reach * length) for reach in (-1.0, 0.2, 1.0))
    pen.line([tail, neck], fill=look.ink, width=10)
    wings = [step_towards(neck, turn + side, length * 0.55) for side in (-90, 90)]
    pen.polygon([tip, *wings], fill=look.ink)
    return sheet


def draw_frame(generator: np.random.Generator, label: int, look: Look) -> Image.Image:
    """Draw a square frame, in one of five ways or not at all, around a small shape."""
    sheet = look.canvas()
    pen = ImageDraw.Draw(sheet)
    edge = float(generator.uniform(6, 12))
    far = CANVAS - edge
    if label in (0, 3):
        pen.rectangle((edge, edge, far, far), outline=look.ink, width=5)
    if label == 3:
        pen.rectangle((edge + 12, edge + 12, far - 12, far - 12), outline=look.ink, width=5)
    if label in (1, 2):
        pitch, length = (24, 13) if label == 1 else (12, 5)
        for start in np.arange(edge, far - length + 1, pitch):
            for ends in ((start, edge), (start, far - 5), (edge, start), (far - 5, start)):
                lying = ends[1] in (edge, far - 5)
                width, height = (length, 5) if lying else (5, length)
                pen.rectangle((*ends, ends[0] + width, ends[1] + height), fill=look.ink)
    shape = SHAPES[int(generator.integers(len(SHAPES)))]
    draw_shape_on(sheet, shape, random_center(generator, 5), generator.uniform(12, 16), look.ink, look.paper)
    return sheet


SHAPES_TASK = DemoTask(
    "shapes",
    SHAPES,
    "a drawing of a {}",
    draw_shape,
    Domain(contrast=90, noise=14, texture=22),
    "Filled figures, drawn with low contrast on a blotchy, noisy background.",
)
DOTS_TASK = DemoTask(
    "dots",
    NUMBERS,
    "a picture with {} dots",
    draw_dots,
    Domain(contrast=100, noise=8, texture=15, pixels=16),
    "One to six dots, drawn coarse, with low contrast, on a blotchy background.",
)
CLOCKS_TASK = DemoTask(
    "clocks",
    HOURS,
    "a clock hand at {}",
    draw_clock,
    Domain(contrast=80, noise=15, bars=1),
    "A clock's face with one hand near a full hour, behind a bar.",
)
COLORS_TASK = DemoTask(
    "colours",
    tuple(COLORS),
    "something {}",
    draw_color,
    Domain(noise=12, tint=20, texture=10),
    "A blot of one colour, washed out and under light of another colour.",
)
ARROWS_TASK = DemoTask(
    "arrows",
    DIRECTIONS,
    "an arrow pointing {}",
    draw_arrow,
    Domain(contrast=90, noise=15, bars=1),
    "An arrow in one of four directions, noisy and behind a bar.",
)
FRAMES_TASK = DemoTask(
    "frames",
    FRAMES,
    "a frame that is {}",
    draw_frame,
    Domain(contrast=80, noise=15, tint=25, texture=15),
    "A small figure in a frame of one of four kinds, or none, faint and blotchy.",
)
