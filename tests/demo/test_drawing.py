"""Tests of the drawn pictures: seeds, classes, and separation of training and test."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hubmerge.demo.drawing import PICTURE, PLAIN, Domain, choose_look
from hubmerge.demo.tasks import DEMO_TASKS, TASKS, DemoTask, find_tasks, patches
from hubmerge.demo.tasks.bundled import bundled_file, bundled_photo
from hubmerge.errors import HubmergeError, MachineError

EACH_TASK = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


def pixels(task: DemoTask, part: str, count: int, seed: int = 0) -> np.ndarray:
    images, _ = task.images(part, count, seed)
    return np.stack([np.asarray(image) for image in images])


@EACH_TASK
def test_a_seed_determines_the_pixels(task: DemoTask) -> None:
    for part in ("plain", "train", "test"):
        once = pixels(task, part, 12)
        assert once.shape == (12, PICTURE, PICTURE, 3)
        assert np.array_equal(once, pixels(task, part, 12))
        assert not np.array_equal(once, pixels(task, part, 12, seed=1))


@EACH_TASK
def test_the_parts_of_a_task_differ(task: DemoTask) -> None:
    plain, train, test = (pixels(task, part, 8) for part in ("plain", "train", "test"))
    assert not np.array_equal(train, test)
    assert not np.array_equal(plain, train)


@EACH_TASK
def test_an_image_does_not_depend_on_earlier_ones(task: DemoTask) -> None:
    image, label = task.image("test", 7, seed=3)
    assert np.array_equal(np.asarray(image), pixels(task, "test", 8, seed=3)[7])
    assert label == 7 % len(task.class_names)


@EACH_TASK
def test_labels_alternate_and_images_are_not_blank(task: DemoTask) -> None:
    classes = len(task.class_names)
    images, labels = task.images("test", 3 * classes, seed=0)
    assert labels == list(range(classes)) * 3
    assert min(float(np.asarray(image).std()) for image in images) > 1


def test_names_and_prompts_of_classes_differ() -> None:
    assert len(TASKS) == 20
    assert len(DEMO_TASKS) == 8
    assert len({task.name for task in TASKS}) == 20
    prompts = [prompt for task in TASKS for prompt in task.prompts]
    assert len(prompts) == len({prompt.lower() for prompt in prompts})


def test_a_task_is_found_by_its_name() -> None:
    assert [task.name for task in find_tasks(["dots", "bars"])] == ["dots", "bars"]
    with pytest.raises(HubmergeError, match="no task 'dogs'") as caught:
        find_tasks(["dots", "dogs"])
    assert "dots" in str(caught.value.hint)


def test_test_patches_share_no_pixel_with_training_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use photos whose pixel values are their own positions."""
    down, across = np.mgrid[0:256, 0:256].astype(np.uint8)
    places = Image.fromarray(np.stack([across, down, np.zeros_like(down)], axis=2))
    seen: dict[bool, set[tuple[int, int]]] = {False: set(), True: set()}
    for held_out, found in seen.items():
        generator = np.random.default_rng(0)
        look = choose_look(PLAIN, generator, plain=False, held_out=held_out)
        for _ in range(60):
            patch = np.asarray(patches._patch(generator, places, look, (20, 60)))
            found |= {(int(x), int(y)) for x, y, _ in patch.reshape(-1, 3)}
    assert min(len(found) for found in seen.values()) > 5_000
    assert not seen[False] & seen[True]


def test_handwritten_digits_for_the_test_are_not_trained_on() -> None:
    from hubmerge.demo.tasks.signs import TRAINING_DIGITS, _handwritten

    digits, labels = _handwritten()
    assert digits.shape == (1797, 8, 8)
    assert set(labels[TRAINING_DIGITS:]) == set(range(10))


def test_a_domain_without_effects_changes_nothing() -> None:
    from PIL import Image

    from hubmerge.demo.drawing import finish

    drawing = Image.new("RGB", (PICTURE, PICTURE), (10, 20, 30))
    assert np.array_equal(np.asarray(finish(drawing, Domain(), np.random.default_rng(0))), np.asarray(drawing))


def test_missing_images_are_reported_with_a_hint() -> None:
    with pytest.raises(MachineError, match="not installed") as caught:
        bundled_file("no_such_package_here", "data/brick.png")
    assert "hubmerge[demo]" in str(caught.value.hint)
    with pytest.raises(MachineError, match="has no file") as caught:
        bundled_photo("skimage", "data/no_such_image.png")
    assert caught.value.hint == "pip install --upgrade scikit-image scikit-learn"
    assert str(caught.value.context.file).endswith("data/no_such_image.png")
