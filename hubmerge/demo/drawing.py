"""Seeded drawing of small pictures: paper, ink, and the effects of a domain.

Pictures are drawn on a canvas of 96 x 96 pixels and reduced to 24 x 24, so that edges are smooth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

CANVAS = 96  # pixels per side while drawing
PICTURE = 24  # pixels per side of the result

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Domain:
    """Effects on the images of a task.

    contrast: smallest difference in brightness of ink and paper, 0 to 255.
    noise: standard deviation of the noise on every pixel, in brightness 0 to 255.
    texture: strength of a soft random pattern behind the drawing, in brightness.
    tint: strength of a random color cast, in brightness.
    pixels: the picture is first reduced to this many pixels per side; None for no reduction.
    bars: number of thin bars drawn over the picture.
    """

    contrast: float = 150
    noise: float = 0
    texture: float = 0
    tint: float = 0
    pixels: int | None = None
    bars: int = 0


PLAIN = Domain()


@dataclass(frozen=True)
class Look:
    """Paper, ink and part of one image, chosen before it is drawn.

    plain: True for the renderings the base model learns from. held_out: True for test images.
    """

    paper: Color
    ink: Color
    plain: bool
    held_out: bool

    def canvas(self) -> Image.Image:
        """Return an empty sheet of paper, 96 x 96."""
        return Image.new("RGB", (CANVAS, CANVAS), self.paper)


Draw = Callable[[np.random.Generator, int, Look], Image.Image]


def choose_look(domain: Domain, generator: np.random.Generator, *, plain: bool, held_out: bool) -> Look:
    """Return dark ink on light paper or light ink on dark paper, both with a slight color."""
    distance = generator.uniform(domain.contrast, min(255, domain.contrast + 60))
    low = generator.uniform(0, 255 - distance)
    dark, light = _near_gray(low, generator), _near_gray(low + distance, generator)
    paper, ink = (light, dark) if generator.random() < 0.5 else (dark, light)
    return Look(paper, ink, plain, held_out)


def finish(drawing: Image.Image, domain: Domain, generator: np.random.Generator) -> Image.Image:
    """Return a drawing reduced to 24 x 24 pixels, with the effects of its domain."""
    if domain.bars:
        drawing = drawing.copy()
        pen = ImageDraw.Draw(drawing)
        for _ in range(domain.bars):
            gray = int(generator.integers(40, 216))
            ends = generator.uniform(0, CANVAS, 2)
            lying = generator.random() < 0.5
            line = [(0, ends[0]), (CANVAS, ends[1])] if lying else [(ends[0], 0), (ends[1], CANVAS)]
            pen.line(line, fill=(gray, gray, gray), width=4)
    if domain.pixels is not None:
        drawing = drawing.resize((domain.pixels, domain.pixels), Image.Resampling.BOX)
    if drawing.size != (PICTURE, PICTURE):
        smaller = drawing.size[0] > PICTURE
        drawing = drawing.resize((PICTURE, PICTURE), Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR)
    pixels = np.asarray(drawing, dtype=np.float64)
    if domain.texture:
        coarse = generator.normal(0, domain.texture, (6, 6))
        soft = Image.fromarray(coarse.astype(np.float32)).resize((PICTURE, PICTURE), Image.Resampling.BICUBIC)
        pixels = pixels + np.asarray(soft, dtype=np.float64)[:, :, None]
    if domain.tint:
        pixels = pixels + generator.uniform(-domain.tint, domain.tint, 3)
    if domain.noise:
        pixels = pixels + generator.normal(0, domain.noise, pixels.shape)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def random_center(generator: np.random.Generator, spread: float = 10) -> tuple[float, float]:
    """Return a point near the middle of the canvas."""
    x, y = CANVAS / 2 + generator.uniform(-spread, spread, 2)
    return float(x), float(y)


def step_towards(point: tuple[float, float], degrees: float, length: float) -> tuple[float, float]:
    """Return the point at a distance and direction from another: 0 degrees is up, 90 is right."""
    radians = np.deg2rad(degrees)
    return (point[0] + length * float(np.sin(radians)), point[1] - length * float(np.cos(radians)))


def polygon(
    center: tuple[float, float], radius: float, corners: int, turn: float = 0, inner: float = 1.0
) -> list[tuple[float, float]]:
    """Return the corners of a polygon with one at `turn` degrees; every second one is at `inner` of the radius."""
    points = []
    for number in range(corners):
        reach = radius if number % 2 == 0 else radius * inner
        points.append(step_towards(center, turn + 360 * number / corners, reach))
    return points


def _near_gray(brightness: float, generator: np.random.Generator) -> Color:
    red, green, blue = np.clip(brightness + generator.uniform(-15, 15, 3), 0, 255)
    return int(red), int(green), int(blue)
