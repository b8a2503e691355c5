"""Patterns that fill the image: lines, stripes, checkers, noise, waves, gradients."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from hubmerge.demo.drawing import CANVAS, PICTURE, Domain, Look, random_center, step_towards
from hubmerge.demo.tasks.task import DemoTask

SLANTS = ("upright", "leaning right", "flat", "leaning left")
WIDTHS = ("hair", "thin", "medium", "broad", "huge")
SIZES = ("tiny", "small", "middling", "large", "giant")
NOISES = ("grainy", "speckled", "cloudy", "streaky", "smooth")
WAVES = ("sine", "saw", "square", "zigzag", "level")
SIDES = ("above", "right", "below", "left", "middle")


def draw_slant(generator: np.random.Generator, label: int, look: Look) -> Image.Image:
    """Draw one long line, a few degrees off its direction."""
    sheet = look.canvas()
    center, turn = random_center(generator, 14), 45 * label + generator.uniform(-12, 12)
    ends = [step_towards(center, turn, reach) for reach in (-42, 42)]
    ImageDraw.Draw(sheet).line(ends, fill=look.ink, width=int(generator.integers(6, 13)))
    return sheet


def draw_stripes(generator: np.random.Generator, label: int, look: Look) -> Image.Image:
    """Draw slanting stripes of one of five widths."""
    period = (9, 14, 22, 34, 54)[label] * generator.uniform(0.9, 1.1)
    across, down = _grid()
    turn = generator.uniform(0, np.pi)
    place = (across * np.cos(turn) + down * np.sin(turn)) / period + generator.uniform()
    return _inked(0.5 + 0.5 * np.sign(np.sin(2 * np.pi * place)), look)


def draw_checkers(generator: np.random.Generator, label: int, look: Look) -> Image.Image:
    """Draw a checkerboard with squares of one of five sizes."""
    side = (5, 8, 12, 19, 30)[label] * generator.uniform(0.92, 1.08)
    across, down = _grid()
    first, second = generator.uniform(0, 2, 2)
    odd = (np.floor(across / side + first) + np.floor(down / side + second)) % 2
    return _inked(odd, look)


def draw_noise(generator: np.random.Generator, label: int, look: Look) -> Image.Image:
    """Draw noise of one kind: grains, specks, clouds, streaks, or a smooth slope."""
    if label == 0:
        values = generator.random((PICTURE, PICTURE))
    elif label == 1:
        values = (generator.random((PICTURE, PICTURE)) < 0.06).astype(np.float64)
    elif label == 2:
        values = _enlarged(generator.random((5, 5)))
    elif label == 3:
        streaks = np.repeat(generator.random((1, PICTURE)), PICTURE, axis=0)
        values = streaks if generator.random() < 0.5 else streaks.T
    else:
        values = _enlarged(generator.random((2, 2)))
    return _inked(values, look)


def draw_wave(generator: np.random.Generator, label: int, look: Look) -> Image.Image:
    """Draw the curve of a signal: sine, saw teeth, square steps, zigzag or a level line."""
    sheet = look.canvas()
    pen = ImageDraw.Draw(sheet)
    phase, periods = generator.uniform(), generator.uniform(1.6, 2.4)
    height, middle = generator.uniform(20, 30), CANVAS / 2 + generator.uniform(-10, 10)
    points = []
    for x in range(0, CANVAS + 1, 2):
        turn = (x / CANVAS * periods + phase) % 1
        value = (
            np.sin(2 * np.pi * turn),
            2 * turn - 1,
            1.0 if turn < 0.5 else -1.0,
            4 * abs(turn - 0.5) - 1,
            0.0,
        )[label]
        points.append((float(x), float(middle - height * value)))
    pen.line(points, fill=look.ink, width=7)
    return sheet


def draw_gradient(generator: np.random.Generator, label: int, look: Look) -> Image.Image:
    """Draw a gradient towards one side or the middle."""
    across, down = _grid()
    across, down = across / CANVAS, down / CANVAS
    steepness = generator.uniform(0.6, 1.0)
    values = 1 - 1.4 * np.hypot(across - 0.5, down - 0.5) if label == 4 else (1 - down, across, down, 1 - across)[label]
    dark, light = sorted((look.ink, look.paper), key=sum)
    values = np.clip(0.5 + steepness * (values - 0.5), 0, 1)
    return ImageOps.colorize(_mask(values), light, dark)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    down, across = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float64)
    return across, down


def _enlarged(values: np.ndarray) -> np.ndarray:
    coarse = Image.fromarray(values.astype(np.float32))
    return np.asarray(coarse.resize((PICTURE, PICTURE), Image.Resampling.BICUBIC), dtype=np.float64)


def _mask(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))


def _inked(values: np.ndarray, look: Look) -> Image.Image:
    """Return values from 0 (paper) to 1 (ink) as an image."""
    return ImageOps.colorize(_mask(values), look.paper, look.ink)


SLANTS_TASK = DemoTask(
    "slants",
    SLANTS,
    "a line that is {}",
    draw_slant,
    Domain(contrast=70, noise=20, texture=15),
    "One line in one of four directions, faint and noisy.",
)
STRIPES_TASK = DemoTask(
    "stripes",
    WIDTHS,
    "stripes of {} width",
    draw_stripes,
    Domain(contrast=50, noise=30, tint=20),
    "Stripes of five widths in any direction, faint and noisy.",
)
CHECKERS_TASK = DemoTask(
    "checkers",
    SIZES,
    "a board with {} squares",
    draw_checkers,
    Domain(contrast=80, noise=18, texture=15),
    "Checkerboards with squares of five sizes, faint and noisy.",
)
NOISES_TASK = DemoTask(
    "noises",
    NOISES,
    "a {} picture of nothing",
    draw_noise,
    Domain(contrast=80, noise=10, bars=1),
    "Five kinds of noise, faint and behind a bar.",
)
WAVES_TASK = DemoTask(
    "waves",
    WAVES,
    "a {} wave",
    draw_wave,
    Domain(contrast=90, noise=15, texture=15),
    "The curve of one of five signals, faint, on a blotchy background.",
)
GRADIENTS_TASK = DemoTask(
    "gradients",
    SIDES,
    "a picture that is dark {}",
    draw_gradient,
    Domain(contrast=90, noise=12, bars=2),
    "Paper that darkens towards one side or the middle, noisy and behind two bars.",
)
