"""Demo stream on disk: a base model, and a fine-tuned vision tower and a dataset for each task.

FOLDER/base/            a CLIPModel repo: weights, tokenizer, image processor, card
FOLDER/towers/TASK/     a CLIPVisionModel repo
FOLDER/datasets/TASK/   a dataset repo: data/train-*.parquet, data/test-*.parquet, card
FOLDER/complete.json    written last: the settings, and the SHA-256 of every file
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hubmerge.demo.plan import StreamSettings
from hubmerge.demo.tasks import DemoTask, find_tasks

MARKER = "complete.json"
PARTS = ("base", "towers", "datasets")
BASE_NAME = "tiny-clip"


@dataclass(frozen=True)
class DemoRepo:
    """Folder of a stream, and the repo that its files are pushed to."""

    kind: Literal["model", "dataset"]
    repo: str
    folder: Path


@dataclass(frozen=True)
class DemoStream:
    """Demo stream in a folder."""

    folder: Path
    settings: StreamSettings

    @property
    def tasks(self) -> tuple[DemoTask, ...]:
        """The tasks, in stream order."""
        return find_tasks(self.settings.tasks)

    @property
    def base(self) -> DemoRepo:
        """The base model: hubmerge-demo/tiny-clip."""
        return DemoRepo("model", f"{self.settings.namespace}/{BASE_NAME}", self.folder / "base")

    def tower(self, task: str) -> DemoRepo:
        """Return the fine-tuned vision tower of a task, named as in published CLIP streams."""
        return DemoRepo("model", f"{self.base.repo}_{task}", self.folder / "towers" / task)

    def dataset(self, task: str) -> DemoRepo:
        """Return the images of a task: hubmerge-demo/TASK."""
        return DemoRepo("dataset", f"{self.settings.namespace}/{task}", self.folder / "datasets" / task)

    def repos(self) -> list[DemoRepo]:
        """Return all repos: the base model, the towers in stream order, the datasets."""
        names = self.settings.tasks
        return [self.base, *map(self.tower, names), *map(self.dataset, names)]

    def is_complete(self) -> bool:
        """Return True if the folder has the complete stream of these settings, and no file has changed since."""
        try:
            marker = json.loads((self.folder / MARKER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(marker == json.loads(json.dumps(self.marker())))

    def marker(self) -> dict[str, object]:
        """Return the content of complete.json for the files that are in the folder now."""
        files = sorted(path for part in PARTS for path in (self.folder / part).rglob("*") if path.is_file())
        return {
            "settings": asdict(self.settings),
            "files": {
                path.relative_to(self.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in files
            },
        }
