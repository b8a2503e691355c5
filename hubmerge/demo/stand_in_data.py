"""Stand-ins for image datasets, with the id, subset, split and columns of a task, and a few random images."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from hubmerge.demo.folders import quiet, write_card
from hubmerge.errors import HubmergeError
from merge_recipes import DatasetReference, Task

SIDE = 32  # pixels
OTHER_CLASSES = 10

CLASSES = {
    "tanganke/sun397": 397,
    "tanganke/stanford_cars": 196,
    "tanganke/resisc45": 45,
    "tanganke/gtsrb": 43,
    "tanganke/dtd": 47,
    "dpdl-benchmark/oxford_flowers102": 102,
    "timm/oxford-iiit-pet": 37,
    "nateraw/rendered-sst2": 2,
}
"""Number of classes of the datasets that tasks take their class names from; all others have ten."""

BOOLEAN = frozenset({"1aurent/PatchCamelyon"})
WEBDATASET = frozenset({"clip-benchmark/wds_fer2013"})


def class_names(task: Task) -> tuple[str, ...]:
    """Return the class names of a task, or an invented name for each class of its dataset."""
    if task.class_names is not None:
        return task.class_names
    return tuple(f"{task.name} {number}" for number in range(CLASSES.get(task.dataset.path, OTHER_CLASSES)))


def write_dataset(folder: Path, task: Task, images: int, rows: int | None) -> None:
    """Write the repo of a task's dataset: `images` images of every class in turn, at most `rows` in total.

    Raises:
        HubmergeError: the task has no images.
    """
    if not task.kind.endswith("image-classification"):
        raise HubmergeError(
            f"task {task.name} of kind {task.kind} has no stand-in: expected an image classification task",
            hint=f"remove the task {task.name} from the recipe",
            repo=task.dataset.path,
        )
    folder.mkdir(parents=True)
    names = class_names(task)
    labels = [number for _ in range(images) for number in range(len(names))][:rows]
    if task.dataset.path in WEBDATASET:
        _write_tar(folder, task.dataset, labels)
    else:
        _write_parquet(folder, task, names, labels)


def _write_parquet(folder: Path, task: Task, names: Sequence[str], labels: Sequence[int]) -> None:
    source = task.dataset
    if source.path in BOOLEAN:
        feature: object = datasets.Value("bool")
    else:
        # Published datasets write class names without spaces.
        feature = datasets.ClassLabel(names=[name.replace(" ", "_") for name in names])
    features = datasets.Features({source.image: datasets.Image(), source.label: feature})
    columns = {
        source.image: [_image(label, row) for row, label in enumerate(labels)],
        source.label: [bool(label) for label in labels] if source.path in BOOLEAN else list(labels),
    }
    subset = source.name or "default"
    file = folder / subset / f"{source.split}-00000-of-00001.parquet"
    file.parent.mkdir()
    with quiet():
        datasets.Dataset.from_dict(columns, features=features).to_parquet(file)
    path = f"{subset}/{source.split}-*"
    files = [{"split": source.split, "path": path}]
    _write_card(folder, source.path, {"configs": [{"config_name": subset, "data_files": files}]})


def _write_tar(folder: Path, source: DatasetReference, labels: Sequence[int]) -> None:
    """Write a WebDataset: a tar with two files per row, named by their columns."""
    (folder / source.split).mkdir()
    with tarfile.open(folder / source.split / "0.tar", "w") as tar:
        for row, label in enumerate(labels):
            picture = io.BytesIO()
            _image(label, row).save(picture, "JPEG")
            for column, content in ((source.label, str(label).encode()), (source.image, picture.getvalue())):
                member = tarfile.TarInfo(f"s{row:07d}.{column}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    _write_card(folder, source.path, {})


def _image(label: int, row: int) -> Image.Image:
    """Return noise around the color of a class, determined by label and row."""
    color = np.random.default_rng(label).uniform(40, 216, 3)
    noise = np.random.default_rng((label, row)).normal(0, 24, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(color + noise, 0, 255).astype(np.uint8))


def _write_card(folder: Path, repo: str, metadata: dict[str, object]) -> None:
    text = f"# Stand-in for {repo}\n\nIts images are noise. It serves to try a run out, and nothing else.\n"
    write_card(folder, {"tags": ["hubmerge-stand-in"], **metadata}, text)
