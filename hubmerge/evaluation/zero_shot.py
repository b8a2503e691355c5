"""Zero-shot image classification: the predicted class is the one whose prompts are most similar to the image.

The head has a row for each class: the mean of the unit text embeddings of its prompts, scaled to unit length. Images go
through the merged vision tower and the base model's projection. logits = exp(logit_scale) * cosine (arXiv:2103.00020,
Section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import evaluate
import numpy as np
import torch

from hubmerge.evaluation.cache import cached_file, is_cached
from hubmerge.evaluation.classes import check_rows, dataset_errors, read_classes, score_classes
from hubmerge.evaluation.clip import ClipScorer
from hubmerge.evaluation.kinds import Weights
from hubmerge.evaluation.metrics import MetricLoader, metric_named
from hubmerge.evaluation.pixels import Preprocessor, cached_pixels, rows_identity
from hubmerge.evaluation.sampling import choose_rows
from hubmerge.evaluation.task_keys import task_place
from hubmerge.report.report import MetricValue
from merge_recipes import Task


@dataclass(frozen=True)
class PreparedZeroShot:
    """Task with its pixels, true classes and head; only the vision tower is missing."""

    name: str
    class_names: tuple[str, ...]
    labels: np.ndarray  # int64 (N,)
    pixels: np.ndarray  # uint8 (N, 3, H, W), memory-mapped
    head: torch.Tensor  # float32 (C, D), unit rows
    preprocessor: Preprocessor
    metrics: dict[str, evaluate.Metric] = field(default_factory=dict)
    batch_size: int = 64

    @property
    def examples(self) -> int:
        """Number of scored images."""
        return len(self.labels)

    def logits(self, scorer: ClipScorer) -> np.ndarray:
        """Return the outputs of the model in the scorer, float32 (N, C)."""
        head = self.head.to(scorer.device)
        batches = []
        for begin in range(0, self.examples, self.batch_size):
            pixels = self.preprocessor.to_input(self.pixels[begin : begin + self.batch_size], scorer.device)
            batches.append(scorer.logits(scorer.image_features(pixels), head))
        return np.concatenate(batches)

    def score(self, scorer: ClipScorer) -> dict[str, MetricValue]:
        """Return the metrics of the task for the model in the scorer.

        Raises:
            EvaluationError: the model's outputs are not finite, or a metric cannot be computed.
        """
        return score_classes(self.metrics, self.logits(scorer), self.labels)


class ZeroShotImageClassification:
    """Task kind `zero-shot-image-classification`, for base models of type clip."""

    name = "zero-shot-image-classification"

    def open_scorer(
        self, base_folder: Path, base: Weights, *, identity: str, device: str | torch.device = "cpu"
    ) -> ClipScorer:
        """Return a scorer with the base CLIP model, in float32 on `device`."""
        return ClipScorer(base_folder, base, identity=identity, device=device)

    def prepare(
        self,
        task: Task,
        rows: datasets.Dataset,
        scorer: ClipScorer,
        cache_folder: Path,
        *,
        dataset_commit: str | None,
        batch_size: int = 64,
        load_metric: MetricLoader | None = None,
    ) -> PreparedZeroShot:
        """Read the labels, decode and resize the images, and compute the head.

        Images and head are cached. Without `dataset_commit`, cached images may be out of date and are not used.

        Raises:
            EvaluationError: the task does not fit its dataset or the base model.
            MachineError: the cache folder cannot be written.
        """
        source = task.dataset
        metrics = {name: metric_named(name, cache_folder, load_metric) for name in task.metrics}
        preprocessor = Preprocessor(scorer.base_folder)
        with dataset_errors(task, dataset_commit):
            check_rows(rows, task)
            class_names, labels = read_classes(rows, task)
            chosen = choose_rows(len(rows), source, labels)
            if chosen is not None:
                rows, labels = rows.select(chosen), labels[chosen]
            identity = rows_identity(source, dataset_commit, chosen)
            pixels = cached_pixels(rows, source.image, preprocessor, identity, cache_folder, task_place(task))
        return PreparedZeroShot(
            name=task.name,
            class_names=class_names,
            labels=labels,
            pixels=pixels,
            head=_cached_head(scorer, task.prompts, class_names, cache_folder),
            preprocessor=preprocessor,
            metrics=metrics,
            batch_size=batch_size,
        )


def _cached_head(
    scorer: ClipScorer, prompts: Sequence[str], class_names: Sequence[str], cache_folder: Path
) -> torch.Tensor:
    """Return the head from the cache, or compute it and write it there."""
    file = cache_folder / "heads" / f"{scorer.head_digest(prompts, class_names)}.npy"
    if is_cached(file):
        return torch.from_numpy(np.load(file))
    head = scorer.class_embeddings(prompts, class_names).cpu()
    with cached_file(file) as out:
        np.save(out, head.numpy())
    return head
