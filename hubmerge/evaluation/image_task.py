"""Parts that all tasks with images share: reading the images and classes, model inputs, scores."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np
import torch

from hubmerge.checkpoints.weight_names import is_timm
from hubmerge.evaluation.classes import check_rows, read_classes, score_classes
from hubmerge.evaluation.pixels import Preprocessor, cached_pixels, rows_identity
from hubmerge.evaluation.sampling import choose_rows
from hubmerge.evaluation.task_keys import task_place
from hubmerge.evaluation.timm_model import TimmPreprocessor
from hubmerge.report.report import MetricValue
from hubmerge.support.progress import count_work
from merge_recipes import Task


@dataclass(frozen=True, kw_only=True)
class PreparedImages(ABC):
    """Task with its pixels and its true classes; subclasses add what turns them into outputs."""

    name: str
    class_names: tuple[str, ...]
    labels: np.ndarray  # int64 (N,)
    pixels: np.ndarray  # uint8 (N, 3, H, W), memory-mapped
    preprocessor: Preprocessor
    metrics: dict[str, evaluate.Metric] = field(default_factory=dict)
    batch_size: int = 64

    @property
    def examples(self) -> int:
        """Number of scored images."""
        return len(self.labels)

    @abstractmethod
    def logits(self, scorer: Any) -> np.ndarray:
        """Return the outputs of the model in the scorer, float32 (N, C).

        Raises:
            EvaluationError: the model's outputs are not finite.
        """

    def inputs(self, device: torch.device) -> Iterator[torch.Tensor]:
        """Yield the model inputs in batches, float32 (B, 3, H, W) on `device`."""
        for begin in range(0, self.examples, self.batch_size):
            pixels = self.pixels[begin : begin + self.batch_size]
            yield self.preprocessor.to_input(pixels, device)
            count_work(len(pixels))

    def score(self, scorer: Any) -> dict[str, MetricValue]:
        """Return the metrics of the task for the model in the scorer.

        Raises:
            EvaluationError: the model's outputs are not finite, or a metric cannot be computed.
        """
        return score_classes(self.metrics, self.logits(scorer), self.labels)


def open_preprocessor(base_folder: Path) -> Preprocessor:
    """Return the image processor of a base model of transformers or timm.

    Raises:
        EvaluationError: it has none, or one that cannot be read.
    """
    with suppress(OSError, ValueError):
        config = json.loads((base_folder / "config.json").read_text(encoding="utf-8"))
        if isinstance(config, dict) and is_timm(config):
            return TimmPreprocessor(base_folder)
    return Preprocessor(base_folder)


def read_images(
    task: Task, rows: datasets.Dataset, base_folder: Path, cache_folder: Path, dataset_commit: str | None
) -> dict[str, Any]:
    """Return the fields of `PreparedImages` that the dataset gives: class_names, labels, pixels and preprocessor.

    Images are cached. Without `dataset_commit`, cached images may be out of date and are not used.

    Raises:
        EvaluationError: the task does not fit its dataset, or the base model has no image processor.
        MachineError: the cache folder cannot be written.
    """
    source, preprocessor = task.dataset, open_preprocessor(base_folder)
    check_rows(rows, task)
    class_names, labels = read_classes(rows, task)
    chosen = choose_rows(len(rows), source, labels)
    if chosen is not None:
        rows, labels = rows.select(chosen), labels[chosen]
    identity = rows_identity(source, dataset_commit, chosen)
    pixels = cached_pixels(rows, source.image, preprocessor, identity, cache_folder, task_place(task))
    return {"class_names": class_names, "labels": labels, "pixels": pixels, "preprocessor": preprocessor}
