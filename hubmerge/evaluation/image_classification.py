"""Image classification: the predicted class is the one with the highest output of the model's head.

The head is that of the base model, or the own head of a checkpoint. Its classes are those in the config. A task may
have some of them only; then only these are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import torch
from transformers import AutoModelForImageClassification

from hubmerge.checkpoints import Checkpoint
from hubmerge.checkpoints.weight_names import is_timm
from hubmerge.evaluation.classes import check_finite, dataset_errors
from hubmerge.evaluation.head_rows import rows_of_head
from hubmerge.evaluation.head_scorer import HeadScorer
from hubmerge.evaluation.image_task import PreparedImages, read_images
from hubmerge.evaluation.labels import have_order
from hubmerge.evaluation.metrics import MetricLoader, metric_named
from hubmerge.evaluation.model_scorer import ModelScorer
from hubmerge.evaluation.own_head import OwnHead
from hubmerge.evaluation.task_keys import check_prompts, task_place
from merge_recipes import Task


@dataclass(frozen=True, kw_only=True)
class PreparedImageClassification(PreparedImages):
    """Task with its pixels, its true classes and the rows of the head for its classes."""

    head_rows: tuple[int, ...]  # of every class of the task

    @torch.no_grad()
    def logits(self, scorer: ModelScorer | HeadScorer) -> np.ndarray:
        """Return the outputs of the model in the scorer, float32 (N, C).

        Raises:
            EvaluationError: the model's outputs are not finite.
        """
        batches = []
        for pixels in self.inputs(scorer.device):
            values = scorer.image_logits(pixels)[:, list(self.head_rows)]
            check_finite(values, scorer.label)
            batches.append(values.float().cpu().numpy())
        return np.concatenate(batches)


class ImageClassification:
    """Task kind `image-classification`, for models of transformers and timm with a classification head."""

    name = "image-classification"

    def open_scorer(
        self, base_folder: Path, base: Checkpoint, *, identity: str, device: str | torch.device = "cpu"
    ) -> ModelScorer | HeadScorer:
        """Return a scorer with the base model and its head, in float32 on `device`."""
        if is_timm(base.config):
            return HeadScorer(base_folder, base, None, identity=identity, device=device)
        return ModelScorer(
            base_folder, base, AutoModelForImageClassification, self.name, identity=identity, device=device
        )

    def open_head_scorer(
        self, base_folder: Path, base: Checkpoint, head: OwnHead, *, identity: str, device: str | torch.device = "cpu"
    ) -> HeadScorer:
        """Return a scorer for the head of a checkpoint, in float32 on `device`."""
        return HeadScorer(base_folder, base, head, identity=identity, device=device)

    def prepare(
        self,
        task: Task,
        rows: datasets.Dataset,
        scorer: ModelScorer | HeadScorer,
        cache_folder: Path,
        *,
        dataset_commit: str | None,
        batch_size: int = 64,
        load_metric: MetricLoader | None = None,
    ) -> PreparedImageClassification:
        """Read the labels, decode and resize the images, and find the classes of the task in the head.

        Images are cached. Without `dataset_commit`, cached images may be out of date and are not used.

        Raises:
            EvaluationError: the task does not fit its dataset or the head.
            MachineError: the cache folder cannot be written.
        """
        check_prompts(task)
        metrics = {name: metric_named(name, cache_folder, load_metric) for name in task.metrics}
        with dataset_errors(task.dataset, dataset_commit):
            images = read_images(task, rows, scorer.base_folder, cache_folder, dataset_commit)
            head_rows = rows_of_head(
                scorer,
                images["class_names"],
                task_place(task),
                ordered=have_order(rows.features, task.dataset.label, task.class_names),
            )
        return PreparedImageClassification(
            name=task.name, head_rows=head_rows, metrics=metrics, batch_size=batch_size, **images
        )
