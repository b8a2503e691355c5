"""Scores of models on tasks, one file for each digest of a model and digest of a task."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from hubmerge.report.report import MetricValue
from hubmerge.support.damage import set_aside, set_aside_files_among
from hubmerge.support.files import unique_partial_path, write_text_atomic

CACHE_VARIABLE = "HUBMERGE_SCORE_CACHE"
"""Environment variable that turns the cache off, with one of the values in `OFF`."""

OFF = frozenset({"0", "off", "no", "false"})

MOST_FILES = 4096
"""Number of files from which the oldest are removed."""

_FORM = 1
_VALUES: TypeAdapter[dict[str, MetricValue]] = TypeAdapter(dict[str, MetricValue])


def is_score_cache_on() -> bool:
    """Return False if the environment turns the cache off."""
    return os.environ.get(CACHE_VARIABLE, "").strip().casefold() not in OFF


@dataclass(frozen=True)
class ScoreCache:
    """Cache of scores in a folder. Any file may be removed at any time.

    Attributes:
        folder: the folder; it need not exist.
        most: the number of files from which the oldest are removed.
    """

    folder: Path
    most: int = MOST_FILES

    def get(self, model: str, task: str) -> dict[str, MetricValue] | None:
        """Return the stored values by metric, None if there are none or the file is damaged.

        Args:
            model: the digest of everything in the model that decides its scores.
            task: the digest of everything else that decides them.
        """
        with suppress(OSError, RecursionError, ValueError, LookupError, TypeError, AttributeError):
            content = json.loads(self._file(model, task).read_bytes())
            stored = content.pop("sha256")
            keys = {"form": _FORM, "model": model, "task": task, "scores": content["scores"]}
            if content == keys and stored == _digest(content) and content["scores"]:
                return _VALUES.validate_python(content["scores"], strict=True)
        return None

    def put(self, model: str, task: str, values: Mapping[str, MetricValue]) -> None:
        """Store values by metric. Do nothing if the disk is full or may not be written, or a value is not finite.

        Args:
            model: the digest of the model, as in `get`.
            task: the digest of the task, as in `get`.
            values: the values.
        """
        content = {"form": _FORM, "model": model, "task": task, "scores": dict(values)}
        with suppress(OSError, ValueError, TypeError):
            text = json.dumps({**content, "sha256": _digest(content)}, allow_nan=False)
            file = self._file(model, task)
            set_aside_files_among([self.folder])
            self.folder.mkdir(parents=True, exist_ok=True)
            if file.is_dir():
                set_aside(file, "a file is expected")
            write_text_atomic(file, text, temporary=unique_partial_path(file))
            self._remove_oldest()

    def _file(self, model: str, task: str) -> Path:
        return self.folder / f"{hashlib.sha256(f'{model} {task}'.encode()).hexdigest()[:40]}.json"

    def _remove_oldest(self) -> None:
        files = [*self.folder.glob("*.json")]
        if len(files) > self.most:
            files.sort(key=lambda file: file.stat().st_mtime_ns)
            for file in files[: len(files) - self.most]:
                file.unlink(missing_ok=True)


def _digest(content: Mapping[str, Any]) -> str:
    """Return the digest of the content of a file; the order of metrics is part of it, since the first one is shown."""
    return hashlib.sha256(json.dumps(content, allow_nan=False).encode()).hexdigest()
