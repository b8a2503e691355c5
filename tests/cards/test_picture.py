"""Picture of the accuracy matrix."""

from __future__ import annotations

import io
import random
import string
from collections.abc import Callable

import pytest
from PIL import Image

from hubmerge.cards import accuracy_picture
from hubmerge.report.accuracy import AccuracyMatrix


def triangle(count: int, names: Callable[[int], str] = "task-{}".format) -> AccuracyMatrix:
    draw = random.Random(count)
    tasks = tuple(names(number) for number in range(1, count + 1))
    matrix = AccuracyMatrix(tasks)
    for step in range(1, count + 1):
        matrix = matrix.record(step, {task: draw.random() for task in tasks[:step]})
    return matrix


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    return image.convert("RGB")


@pytest.mark.parametrize("count", [1, 2, 8, 20])
def test_nothing_is_cut_off(count: int) -> None:
    """All four edges are white: no label or cell is outside of the picture."""
    matrix = triangle(count, lambda number: f"a-task-with-a-long-name-{number:02d}"[:26])
    references = dict.fromkeys(matrix.tasks, 0.5)
    names = dict(enumerate(matrix.tasks, start=1))
    image = opened(accuracy_picture(matrix, base=references, own=references, names=names))
    width, height = image.size
    assert max(width, height) < 3000
    for box in ((0, 0, width, 3), (0, height - 3, width, height), (0, 0, 3, height), (width - 3, 0, width, height)):
        assert image.crop(box).getextrema() == ((255, 255),) * 3


def test_the_same_matrix_gives_the_same_bytes() -> None:
    assert accuracy_picture(triangle(3)) == accuracy_picture(triangle(3))
    assert accuracy_picture(triangle(3)) != accuracy_picture(triangle(3).record(3, {"task-1": 0.0}))


def test_references_make_it_taller() -> None:
    matrix = triangle(2)
    alone = opened(accuracy_picture(matrix)).size[1]
    assert opened(accuracy_picture(matrix, base={"task-1": 0.1}, own={"task-1": 0.9})).size[1] > alone


@pytest.mark.parametrize("name", ["$\\frac{", "日本語", "😀" * 40, "a\nb", string.printable])
def test_any_name_can_be_drawn(name: str) -> None:
    matrix = AccuracyMatrix((name,)).record(1, {name: 0.5})
    picture = opened(accuracy_picture(matrix, names={1: name}))
    assert picture.tobytes() != opened(accuracy_picture(matrix, names={1: "another name"})).tobytes()


def test_no_rows_no_picture() -> None:
    with pytest.raises(ValueError, match="without rows"):
        accuracy_picture(AccuracyMatrix(("a",)))
