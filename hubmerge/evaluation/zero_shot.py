"""Zero-shot image classification: the predicted class is the one whose prompts are most similar to the image.

The head has a row for each class: the mean of the unit text embeddings of its prompts, scaled to unit length. Images go
through the merged vision tower and the base model's projection. logits = exp(logit_scale) * cosine (arXiv:2103.00020,
Section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import torch

from hubmerge.evaluation.cache import cached_file, is_cached
from hubmerge.evaluation.classes import dataset_errors
from hubmerge.evaluation.clip import ClipScorer
from hubmerge.evaluation.image_task import PreparedImages, read_images
from hubmerge.evaluation.kinds import Weights
from hubmerge.evaluation.metrics import MetricLoader, metric_named
from merge_recipes import Task


@dataclass(frozen=True, kw_only=True)
class PreparedZeroShot(PreparedImages):
    """Task with its pixels, true classes and head; only the vision tower is missing."""

    head: torch.Tensor  # float32 (C, D), unit rows

    def logits(self, scorer: ClipScorer) -> np.ndarray:
        """Return the outputs of the model in the scorer, float32 (N, C)."""
        head = self.head.to(scorer.device)
        return np.concatenate(
            [scorer.logits(scorer.image_features(pixels), head) for pixels in self.inputs(scorer.device)]
        )


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
        metrics = {name: metric_named(name, cache_folder, load_metric) for name in task.metrics}
        with dataset_errors(task.dataset, dataset_commit):
            images = read_images(task, rows, scorer.base_folder, cache_folder, dataset_commit)
        head = _cached_head(scorer, task.prompts, images["class_names"], cache_folder)
        return PreparedZeroShot(name=task.name, head=head, metrics=metrics, batch_size=batch_size, **images)


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
