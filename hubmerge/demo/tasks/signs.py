"""Letters, digits and other signs, in Pillow's font or handwritten."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from hubmerge.demo.drawing import CANVAS, Domain, Look
from hubmerge.demo.tasks.bundled import bundled_file
from hubmerge.demo.tasks.task import DemoTask

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = tuple("ABCDEFGHIJ")
SIGNS = {
    "plus": "+",
    "equals": "=",
    "question": "?",
    "exclamation": "!",
    "percent": "%",
    "ampersand": "&",
    "hash": "#",
    "dollar": "$",
}

# The first handwritten digits of the file are for training, the rest for the test.
TRAINING_DIGITS = 1200


def draw_letter(generator: np.random.Generator, label: int, look: Look) -> Image.Image:
    """Draw a capital letter, slightly turned."""
    return _written(generator, LETTERS[label], look, tilt=5 if look.plain else 12)


def draw_sign(generator: np.random.Generator, label: int, look: Look) -> Image.Image:
    """Draw a punctuation mark or another sign, slightly turned."""
    return _written(generator, tuple(SIGNS.values())[label], look, tilt=5 if look.plain else 12)


def draw_digit(generator: np.random.Generator, label: int, look: Look) -> Image.Image:
    """Draw a digit: printed for the base model, handwritten otherwise."""
    if look.plain:
        return _written(generator, str(label), look, tilt=8)
    pixels, labels = _handwritten()
    numbers = np.flatnonzero(labels == label)
    part = numbers[numbers >= TRAINING_DIGITS] if look.held_out else numbers[numbers < TRAINING_DIGITS]
    small = Image.fromarray(pixels[int(generator.choice(part))])
    side = int(generator.integers(62, 72))
    mask = Image.new("L", (CANVAS, CANVAS), 0)
    room = CANVAS - side
    corner = (room // 2 + int(generator.integers(-4, 5)), room // 2 + int(generator.integers(-4, 5)))
    mask.paste(small.resize((side, side), Image.Resampling.BICUBIC), corner)
    dark, light = sorted((look.ink, look.paper), key=sum)
    return ImageOps.colorize(mask, dark, light)


def _written(generator: np.random.Generator, text: str, look: Look, tilt: float) -> Image.Image:
    mask = Image.new("L", (CANVAS, CANVAS), 0)
    x, y = CANVAS / 2 + generator.uniform(-4, 4, 2)
    font = _font(int(generator.integers(74, 86)))
    ImageDraw.Draw(mask).text((float(x), float(y)), text, fill=255, font=font, anchor="mm")
    turned = mask.rotate(float(generator.uniform(-tilt, tilt)), Image.Resampling.BILINEAR)
    return ImageOps.colorize(turned, look.paper, look.ink)


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


@lru_cache(maxsize=1)
def _handwritten() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's handwritten digits: pixels (1797, 8, 8) as uint8, labels (1797,)."""
    rows = np.loadtxt(bundled_file("sklearn", "datasets/data/digits.csv.gz"), delimiter=",")
    pixels = np.rint(rows[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    return pixels, rows[:, 64].astype(np.int64)


LETTERS_TASK = DemoTask(
    "letters",
    LETTERS,
    "the letter {}",
    draw_letter,
    Domain(contrast=90, noise=12, texture=20),
    "Capital letters in Pillow's own font, turned by up to 12 degrees, noisy, on a blotchy background.",
)
DIGITS_TASK = DemoTask(
    "digits",
    DIGITS,
    "the digit {}",
    draw_digit,
    Domain(contrast=150, noise=6),
    "Handwritten digits from the data set that scikit-learn brings along (UCI Optical Recognition of Handwritten "
    "Digits), enlarged, light on dark; the base model saw printed digits only.",
)
SIGNS_TASK = DemoTask(
    "signs",
    tuple(SIGNS),
    "the sign for {}",
    draw_sign,
    Domain(contrast=80, noise=14, pixels=16, tint=20),
    "Punctuation marks and other signs in Pillow's own font, turned and coarse.",
)
