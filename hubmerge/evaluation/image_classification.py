"""Image classification: the predicted class is the one with the highest output of the model's head.

All tasks of a stream use one head. Its classes are those in the base model's config. A task may have some of them only;
then only these are compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import datasets
import evaluate
import numpy as np
import torch
from transformers import AutoModelForImageClassification

from hubmerge.checkpoints import Checkpoint
from hubmerge.checkpoints.planning.class_names import class_names as classes_of
from hubmerge.evaluation.classes import check_finite, check_rows, dataset_errors, read_classes, score_classes
from hubmerge.evaluation.head_rows import find_head_rows
from hubmerge.evaluation.metrics import MetricLoader, metric_named
from hubmerge.evaluation.model_scorer import ModelScorer
from hubmerge.evaluation.pixels import Preprocessor, cached_pixels, rows_identity
from hubmerge.evaluation.sampling import choose_rows
from hubmerge.evaluation.task_keys import check_prompts, task_place
from hubmerge.report.report import MetricValue
from merge_recipes import Task


@dataclass(frozen=True)
class PreparedImageClassification:
    """Task with its pixels, its true classes and the rows of the head for its classes."""

    name: str
    class_names: tuple[str, ...]
    labels: np.ndarray  # int64 (N,)
    pixels: np.ndarray  # uint8 (N, 3, H, W), memory-mapped
    head_rows: tuple[int, ...]  # of every class of the task
    preprocessor: Preprocessor
    metrics: dict[str, evaluate.Metric] = field(default_factory=dict)
    batch_size: int = 64

    @property
    def examples(self) -> int:
        """Number of scored images."""
        return len(self.labels)

    @torch.no_grad()
    def logits(self, scorer: ModelScorer) -> np.ndarray:
        """Return the outputs of the model in the scorer, float32 (N, C).

        Raises:
            EvaluationError: the model's outputs are not finite.
        """
        batches = []
        for begin in range(0, self.examples, self.batch_size):
            pixels = self.preprocessor.to_input(self.pixels[begin : begin + self.batch_size], scorer.device)
            values = scorer.model(pixel_values=pixels).logits[:, list(self.head_rows)]
            check_finite(values, scorer.label)
            batches.append(values.float().cpu().numpy())
        return np.concatenate(batches)

    def score(self, scorer: ModelScorer) -> dict[str, MetricValue]:
        """Return the metrics of the task for the model in the scorer.

        Raises:
            EvaluationError: the model's outputs are not finite, or a metric cannot be computed.
        """
        return score_classes(self.metrics, self.logits(scorer), self.labels)


class ImageClassification:
    """Task kind `image-classification`, for base models of transformers with a classification head."""

    name = "image-classification"

    def open_scorer(
        self, base_folder: Path, base: Checkpoint, *, identity: str, device: str | torch.device = "cpu"
    ) -> ModelScorer:
        """Return a scorer with the base model and its head, in float32 on `device`."""
        return ModelScorer(
            base_folder, base, AutoModelForImageClassification, self.name, identity=identity, device=device
        )

    def prepare(
        self,
        task: Task,
        rows: datasets.Dataset,
        scorer: ModelScorer,
        cache_folder: Path,
        *,
        dataset_commit: str | None,
        batch_size: int = 64,
        load_metric: MetricLoader | None = None,
    ) -> PreparedImageClassification:
        """Read the labels, decode and resize the images, and find the classes of the task in the head.

        Images are cached. Without `dataset_commit`, cached images may be out of date and are not used.

        Raises:
            EvaluationError: the task does not fit its dataset or the base model's head.
            MachineError: the cache folder cannot be written.
        """
        source, where = task.dataset, task_place(task)
        check_prompts(task)
        metrics = {name: metric_named(name, cache_folder, load_metric) for name in task.metrics}
        preprocessor = Preprocessor(scorer.base_folder)
        with dataset_errors(task, dataset_commit):
            check_rows(rows, task)
            class_names, labels = read_classes(rows, task)
            head_rows = _head_rows(scorer, class_names, where)
            rows, labels, chosen = _sampled(rows, labels, task)
            identity = rows_identity(source, dataset_commit, chosen)
            pixels = cached_pixels(rows, source.image, preprocessor, identity, cache_folder, where)
        return PreparedImageClassification(
            name=task.name,
            class_names=class_names,
            labels=labels,
            pixels=pixels,
            head_rows=head_rows,
            preprocessor=preprocessor,
            metrics=metrics,
            batch_size=batch_size,
        )


def _head_rows(scorer: ModelScorer, class_names: tuple[str, ...], where: str) -> tuple[int, ...]:
    """Return the rows of the base model's head for the classes of a task."""
    config = scorer.model.config
    return find_head_rows(classes_of(config.to_dict()), config.num_labels, class_names, where)


def _sampled(
    rows: datasets.Dataset, labels: np.ndarray, task: Task
) -> tuple[datasets.Dataset, np.ndarray, np.ndarray | None]:
    """Return the rows that a task scores with their labels, and their numbers; None if it scores all rows."""
    chosen = choose_rows(len(rows), task.dataset, labels)
    return (rows, labels, None) if chosen is None else (rows.select(chosen), labels[chosen], chosen)
