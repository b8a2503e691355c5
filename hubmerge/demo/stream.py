"""The demo's stream on disk: one base model, one fine-tuned vision tower and one dataset for each task.

FOLDER/base/            a CLIPModel repo: weights, tokenizer, image processor, card
FOLDER/towers/TASK/     a CLIPVisionModel repo
FOLDER/datasets/TASK/   a dataset repo: data/train-*.parquet, data/test-*.parquet, card
FOLDER/complete.json    written last: what was made, and the sha256 of every file
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hubmerge.demo import folders
from hubmerge.demo.model import make_model, make_tokenizer, perturbed_tower
from hubmerge.demo.tasks import TASKS, DemoTask, tasks_named

NAMESPACE = "hubmerge-demo"
MARKER = "complete.json"

# Raised whenever the same settings would give other files, so that older folders are made anew.
FORMAT = 1

Progress = Callable[[str], None]


@dataclass(frozen=True)
class StreamSettings:
    """All that decides what a stream's files hold."""

    tasks: tuple[str, ...]
    seed: int = 0
    namespace: str = NAMESPACE
    trained: bool = True
    train_images: int = 40
    test_images: int = 240
    format: int = FORMAT


@dataclass(frozen=True)
class DemoRepo:
    """One folder of a stream and the repo it belongs to."""

    kind: Literal["model", "dataset"]
    repo: str
    folder: Path


@dataclass(frozen=True)
class DemoStream:
    """A finished stream on disk."""

    folder: Path
    settings: StreamSettings

    @property
    def tasks(self) -> tuple[DemoTask, ...]:
        """The tasks, in stream order."""
        return tasks_named(self.settings.tasks)

    @property
    def base(self) -> DemoRepo:
        """The base model: hubmerge-demo/tiny-clip."""
        return DemoRepo("model", f"{self.settings.namespace}/{folders.BASE_NAME}", self.folder / "base")

    def tower(self, task: str) -> DemoRepo:
        """The fine-tuned vision tower of a task: hubmerge-demo/tiny-clip_TASK."""
        repo = f"{self.settings.namespace}/{folders.tower_name(task)}"
        return DemoRepo("model", repo, self.folder / "towers" / task)

    def dataset(self, task: str) -> DemoRepo:
        """The images of a task: hubmerge-demo/TASK."""
        return DemoRepo("dataset", f"{self.settings.namespace}/{task}", self.folder / "datasets" / task)

    def repos(self) -> list[DemoRepo]:
        """All repos: the base, the towers in stream order, the datasets."""
        names = self.settings.tasks
        return [self.base, *map(self.tower, names), *map(self.dataset, names)]


def make_tiny_repos(folder: Path, tasks: int | Sequence[str] = 2, seed: int = 0) -> DemoStream:
    """A stream in which nothing was trained: random base, noisy copies of its tower, a few images a task.

    Takes about a second, for tests of everything around the weights. tasks: names, or how many of the first.
    """
    names = tuple(task.name for task in TASKS[:tasks]) if isinstance(tasks, int) else tuple(tasks)
    settings = StreamSettings(names, seed, trained=False, train_images=8, test_images=24)
    return _make(folder, settings, _write_untrained, lambda _: None)


def _make(
    folder: Path,
    settings: StreamSettings,
    write: Callable[[DemoStream, Progress], None],
    progress: Progress,
) -> DemoStream:
    """Reuse the folder if it holds this very stream, whole; otherwise write it from scratch."""
    stream = DemoStream(folder, settings)
    if _is_complete(stream):
        progress(f"reusing {folder}")
        return stream
    for part in ("base", "towers", "datasets"):
        shutil.rmtree(folder / part, ignore_errors=True)
    (folder / MARKER).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    write(stream, progress)
    marker = {"settings": asdict(settings), "files": _digests(folder)}
    unfinished = folder / f"{MARKER}.tmp"
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(json.dumps(marker, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(folder / MARKER)
    return stream


def _is_complete(stream: DemoStream) -> bool:
    try:
        marker = json.loads((stream.folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    wanted = json.loads(json.dumps(asdict(stream.settings)))
    return marker == {"settings": wanted, "files": _digests(stream.folder)}


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.glob("*/**/*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _write_untrained(stream: DemoStream, progress: Progress) -> None:
    settings = stream.settings
    tokenizer = make_tokenizer(prompt for task in TASKS for prompt in task.prompts)
    model = make_model(tokenizer, settings.seed)
    folders.write_base(stream.base.folder, model, tokenizer, 0)
    for number, task in enumerate(stream.tasks, start=1):
        tower = perturbed_tower(model, settings.seed + number)
        folders.write_tower(stream.tower(task.name).folder, tower, task, settings.namespace, {})
        _write_images(stream, task)


def _write_images(stream: DemoStream, task: DemoTask) -> None:
    settings = stream.settings
    counts = {"train": settings.train_images, "test": settings.test_images}
    folders.write_dataset(stream.dataset(task.name).folder, task, settings.seed, counts)
