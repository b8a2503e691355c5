"""Patches of photographs: surfaces in gray, things in color.

Each image is divided into 5 x 4 cells. Every third cell, along the diagonals, is for the test. A patch is inside one
cell, so training never sees a test pixel. The base model is trained on larger patches than the tasks.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from hubmerge.demo.drawing import Domain, Look
from hubmerge.demo.tasks.bundled import bundled_photo
from hubmerge.demo.tasks.task import DemoTask

COLUMNS, ROWS = 5, 4
CELLS = [(column, row) for column in range(COLUMNS) for row in range(ROWS)]
TEST_CELLS = [(column, row) for column, row in CELLS if (column + row) % 3 == 2]
TRAINING_CELLS = [cell for cell in CELLS if cell not in TEST_CELLS]

SURFACES = {
    "brick": ("skimage", "data/brick.png"),
    "grass": ("skimage", "data/grass.png"),
    "gravel": ("skimage", "data/gravel.png"),
    "coins": ("skimage", "data/coins.png"),
    "print": ("skimage", "data/page.png"),
    "tissue": ("skimage", "data/ihc.png"),
}
PHOTOS = {
    "cat": ("skimage", "data/chelsea.png"),
    "astronaut": ("skimage", "data/astronaut.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "temple": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
}


def draw_surface(generator: np.random.Generator, label: int, look: Look) -> Image.Image:
    """Draw a patch of a surface, in gray between ink and paper."""
    package, path = tuple(SURFACES.values())[label]
    patch = _patch(generator, bundled_photo(package, path), look, (75, 110) if look.plain else (60, 90))
    dark, light = sorted((look.ink, look.paper), key=sum)
    return ImageOps.colorize(ImageOps.autocontrast(patch.convert("L")), dark, light)


def draw_photo(generator: np.random.Generator, label: int, look: Look) -> Image.Image:
    """Draw a patch of a photograph: unchanged for the base model, darkened otherwise."""
    package, path = tuple(PHOTOS.values())[label]
    patch = _patch(generator, bundled_photo(package, path), look, (80, 125) if look.plain else (65, 110))
    return patch if look.plain else ImageEnhance.Brightness(patch).enhance(generator.uniform(0.55, 0.75))


def _patch(generator: np.random.Generator, photo: Image.Image, look: Look, sides: tuple[int, int]) -> Image.Image:
    """Return the square with the highest contrast of four random ones; `sides` is the range of its size in pixels."""
    patches = [_square(generator, photo, look, sides) for _ in range(4)]
    patch = max(patches, key=lambda one: float(np.asarray(one.convert("L")).std()))
    return ImageOps.mirror(patch) if generator.random() < 0.5 else patch


def _square(generator: np.random.Generator, photo: Image.Image, look: Look, sides: tuple[int, int]) -> Image.Image:
    """Return a square inside one of the photo's cells for this look."""
    column, row = generator.choice(TEST_CELLS if look.held_out else TRAINING_CELLS)
    left, right = (int(edge) * photo.width // COLUMNS for edge in (column, column + 1))
    top, bottom = (int(edge) * photo.height // ROWS for edge in (row, row + 1))
    side = min(int(generator.integers(*sides)), right - left, bottom - top)
    x = left + int(generator.integers(0, right - left - side + 1))
    y = top + int(generator.integers(0, bottom - top - side + 1))
    return photo.crop((x, y, x + side, y + side))


SURFACES_TASK = DemoTask(
    "surfaces",
    tuple(SURFACES),
    "a close view of {}",
    draw_surface,
    Domain(contrast=140, noise=8, tint=25),
    "Grey patches of six images that scikit-image brings along, tinted; training and test patches come from "
    "different parts of each image.",
)
PHOTOS_TASK = DemoTask(
    "photos",
    tuple(PHOTOS),
    "part of a photo with a {}",
    draw_photo,
    Domain(noise=5, tint=8),
    "Patches of six photographs that scikit-image and scikit-learn bring along, darkened; training "
    "and test patches come from different parts of each photo.",
)
