"""Zero-shot image classification: an image belongs to the class whose prompts are nearest to it.

Per class, the head is the mean of the unit text embeddings of all prompts, made unit again. Images go through the
merged vision tower and the base model's projection. logits = exp(logit_scale) * cosine (arXiv:2103.00020, 3.1).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import evaluate
import numpy as np
import torch

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.cache import whole_file
from hubmerge.evaluation.clip import ClipScorer
from hubmerge.evaluation.kinds import Weights
from hubmerge.evaluation.labels import read_labels
from hubmerge.evaluation.metrics import MetricLoader, compute_metric, metric_named
from hubmerge.evaluation.pixels import Preprocessor, cached_pixels
from hubmerge.report.report import MetricValue
from merge_recipes import Task


@dataclass(frozen=True)
class PreparedZeroShot:
    """One task with its pixels, true classes and head: all but the vision tower."""

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
        """How many images are scored."""
        return len(self.labels)

    def logits(self, scorer: ClipScorer) -> np.ndarray:
        """float32 (N, C) for the model that `scorer` holds."""
        head = self.head.to(scorer.device)
        batches = []
        for begin in range(0, self.examples, self.batch_size):
            pixels = self.preprocessor.to_input(self.pixels[begin : begin + self.batch_size], scorer.device)
            batches.append(scorer.logits(scorer.image_features(pixels), head))
        return np.concatenate(batches)

    def score(self, scorer: ClipScorer) -> dict[str, MetricValue]:
        """Every metric of the task for the model that `scorer` holds.

        Raises:
            EvaluationError: the model gives values that are not finite, or a metric cannot be computed.
        """
        logits = self.logits(scorer)
        values: dict[str, MetricValue] = {}
        for name, metric in self.metrics.items():
            values |= compute_metric(metric, name, logits, self.labels)
        return values


class ZeroShotImageClassification:
    """The kind `zero-shot-image-classification`, for base models of type clip."""

    name = "zero-shot-image-classification"

    def open_scorer(
        self, base_folder: Path, base: Weights, *, identity: str, device: str | torch.device = "cpu"
    ) -> ClipScorer:
        """The base CLIP model, in float32 on `device`."""
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
        """Read labels, decode and resize the images, and compute the head: each once a run, and kept in the cache.

        `dataset_commit` is what the lock says of the dataset. Without one (None) the images are prepared afresh, as
        nothing tells whether cached ones are still the same.

        Raises:
            EvaluationError: the task does not fit its dataset or the base model.
            MachineError: the cache folder cannot be written.
        """
        source = task.dataset
        where = f"task {task.name}, {source.path}, split {source.split}"
        metrics = {name: metric_named(name, cache_folder, load_metric) for name in task.metrics}
        if len(rows) == 0:
            raise EvaluationError(f"{where}: no examples", hint="name a split that has some")
        # Names come from all rows, so that a cap changes which examples are scored but never what the classes are.
        class_names, labels = read_labels(rows, source.label, task.class_names, where)
        if len(class_names) < 2:
            raise EvaluationError(f"{where}: classification needs two classes or more, there is {len(class_names)}")
        if source.max_examples is not None and source.max_examples < len(rows):
            rows, labels = rows.select(range(source.max_examples)), labels[: source.max_examples]
        preprocessor = Preprocessor(scorer.base_folder)
        commit = dataset_commit or f"unknown {uuid.uuid4()}"
        identity = "\n".join([source.path, source.name or "", source.split, commit])
        return PreparedZeroShot(
            name=task.name,
            class_names=class_names,
            labels=labels,
            pixels=cached_pixels(rows, source.image, preprocessor, identity, cache_folder, where),
            head=_cached_head(scorer, task.prompts, class_names, cache_folder),
            preprocessor=preprocessor,
            metrics=metrics,
            batch_size=batch_size,
        )


def _cached_head(
    scorer: ClipScorer, prompts: Sequence[str], class_names: Sequence[str], cache_folder: Path
) -> torch.Tensor:
    """The head from the cache, or computed and put there, complete or absent."""
    file = cache_folder / "heads" / f"{scorer.head_digest(prompts, class_names)}.npy"
    if file.exists():
        return torch.from_numpy(np.load(file))
    head = scorer.class_embeddings(prompts, class_names).cpu()
    with whole_file(file) as out:
        np.save(out, head.numpy())
    return head
