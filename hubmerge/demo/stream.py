"""The demo's stream on disk: one base model, one fine-tuned vision tower and one dataset for each task.

    FOLDER/base/            a CLIPModel repo: weights, tokenizer, image processor, card
    FOLDER/towers/TASK/     a CLIPVisionModel repo
    FOLDER/datasets/TASK/   a dataset repo: data/train-*.parquet, data/test-*.parquet, card
    FOLDER/complete.json    written last: what was made, and the sha256 of every file

A folder that is complete is used again, which needs neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hubmerge.demo.plan import NAMESPACE, StreamSettings, TrainingPlan
from hubmerge.demo.tasks import DEMO_TASKS, TASKS, DemoTask, tasks_named
from hubmerge.support.files import write_text_atomic

MARKER = "complete.json"
PARTS = ("base", "towers", "datasets")
BASE_NAME = "tiny-clip"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class DemoRepo:
    """One folder of a stream and the repo it belongs to."""

    kind: Literal["model", "dataset"]
    repo: str
    folder: Path


@dataclass(frozen=True)
class DemoStream:
    """A stream on disk."""

    folder: Path
    settings: StreamSettings

    @property
    def tasks(self) -> tuple[DemoTask, ...]:
        """The tasks, in stream order."""
        return tasks_named(self.settings.tasks)

    @property
    def base(self) -> DemoRepo:
        """The base model: hubmerge-demo/tiny-clip."""
        return DemoRepo("model", f"{self.settings.namespace}/{BASE_NAME}", self.folder / "base")

    def tower(self, task: str) -> DemoRepo:
        """The fine-tuned vision tower of a task, named as published CLIP streams are: hubmerge-demo/tiny-clip_TASK."""
        return DemoRepo("model", f"{self.base.repo}_{task}", self.folder / "towers" / task)

    def dataset(self, task: str) -> DemoRepo:
        """The images of a task: hubmerge-demo/TASK."""
        return DemoRepo("dataset", f"{self.settings.namespace}/{task}", self.folder / "datasets" / task)

    def repos(self) -> list[DemoRepo]:
        """All repos: the base, the towers in stream order, the datasets."""
        names = self.settings.tasks
        return [self.base, *map(self.tower, names), *map(self.dataset, names)]

    def is_complete(self) -> bool:
        """Whether the folder holds this very stream, every file as it was written."""
        try:
            marker = json.loads((self.folder / MARKER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(marker == json.loads(json.dumps(self._marker())))

    def _marker(self) -> dict[str, object]:
        files = sorted(path for part in PARTS for path in (self.folder / part).rglob("*") if path.is_file())
        return {
            "settings": asdict(self.settings),
            "files": {
                path.relative_to(self.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in files
            },
        }


def make_stream(
    folder: Path,
    seed: int = 0,
    tasks: Sequence[str] | None = None,
    progress: Progress = print,
    *,
    plan: TrainingPlan | None = None,
    namespace: str = NAMESPACE,
) -> DemoStream:
    """Train the stream of these tasks (None: the eight of the demo), or reuse the folder if it holds it already.

    The same seed gives the same bytes on the same machine. Takes one to two minutes on two cores for eight tasks.

    Raises:
        HubmergeError: a task is not known.
        MachineError: the packages whose images are drawn on are not installed.
    """
    plan = plan or TrainingPlan()
    names = tuple(task.name for task in DEMO_TASKS) if tasks is None else tuple(tasks)
    tasks_named((*names, *plan.base_tasks))
    stream = DemoStream(folder, StreamSettings(names, seed, namespace, plan))
    return _make(stream, progress)


def make_tiny_repos(folder: Path, tasks: int | Sequence[str] = 2, seed: int = 0) -> DemoStream:
    """A stream in which nothing was trained: random base, noisy copies of its tower, a few images a task.

    Takes about a second, for tests of everything around the weights. tasks: names, or how many of the first.
    """
    names = tuple(task.name for task in TASKS[:tasks]) if isinstance(tasks, int) else tuple(tasks)
    settings = StreamSettings(names, seed, training=None, train_images=8, test_images=24)
    return _make(DemoStream(folder, settings), lambda _: None)


def _make(stream: DemoStream, progress: Progress) -> DemoStream:
    if stream.is_complete():
        progress(f"the stream in {stream.folder} is complete, using it again")
        return stream
    from hubmerge.demo import making

    folder = stream.folder
    (folder / MARKER).unlink(missing_ok=True)
    for part in PARTS:
        shutil.rmtree(folder / part, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    if stream.settings.training is None:
        making.write_untrained(stream)
    else:
        making.write_trained(stream, stream.settings.training, progress)
    write_text_atomic(folder / MARKER, json.dumps(stream._marker(), indent=2) + "\n")
    return stream
