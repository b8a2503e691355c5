"""Interfaces of a task kind: the kind, its scorer and its prepared tasks.

A kind of this package is a class in a module of its own and one line in `hubmerge.evaluation.registry`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from hubmerge.report.report import MetricValue
from merge_recipes import Task

if TYPE_CHECKING:  # these libraries take seconds to import
    import datasets
    import evaluate
    import numpy as np
    import torch

    from hubmerge.checkpoints import Checkpoint
    from hubmerge.evaluation.metrics import MetricLoader
    from hubmerge.evaluation.own_head import OwnHead


class Weights(Protocol):
    """Weights of a model by tensor name, such as a `hubmerge.checkpoints.Checkpoint`."""

    label: str
    tensors: Any  # mapping of tensor names to something that has a `shape`

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor in its stored dtype."""
        ...


class Scorer(Protocol):
    """Model that is built once for a run, and whose weights are replaced after every step."""

    label: str

    def load(self, weights: Weights, *, check_frozen: bool = True) -> None:
        """Load the merged model, or with `check_frozen=False` any fine-tuned checkpoint."""
        ...

    def load_base(self) -> None:
        """Load the weights of the base model."""
        ...


@runtime_checkable
class ReleasableScorer(Scorer, Protocol):
    """Scorer that builds its model anew for all weights, and whose memory can be freed in between."""

    def release(self) -> None:
        """Free the memory of the model; the next weights build it anew."""
        ...


class PreparedTask(Protocol):
    """Task with all preparations that do not depend on the model."""

    @property
    def name(self) -> str:
        """Name of the task in the recipe."""
        ...

    @property
    def examples(self) -> int:
        """Number of scored examples."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in order of their number, empty for a task without classes."""
        ...

    def score(self, scorer: Any) -> dict[str, MetricValue]:
        """Return the value of each metric for the model in the scorer."""
        ...


@runtime_checkable
class ClassificationTask(PreparedTask, Protocol):
    """Prepared task whose answers are classes."""

    @property
    def labels(self) -> np.ndarray:
        """True class of each example, int64 (N,)."""
        ...

    @property
    def metrics(self) -> dict[str, evaluate.Metric]:
        """Metrics by name."""
        ...

    def logits(self, scorer: Any) -> np.ndarray:
        """Return the outputs of the model in the scorer, float32 (N, C)."""
        ...


class TaskKind(Protocol):
    """Kind of task. `name` is its name in recipes; for the kinds of this package it is the Hub's name too."""

    name: str

    def open_scorer(self, base_folder: Path, base: Checkpoint, *, identity: str, device: str = "cpu") -> Any:
        """Return a scorer with the base model.

        Args:
            base_folder: the folder of the base model.
            base: its weights.
            identity: its commit, used as a key of the cache.
            device: the torch device.
        """
        ...

    def prepare(
        self,
        task: Task,
        rows: datasets.Dataset,
        scorer: Any,
        cache_folder: Path,
        *,
        dataset_commit: str | None,
        batch_size: int = 64,
        load_metric: MetricLoader | None = None,
    ) -> PreparedTask:
        """Check a task against its dataset and prepare all that does not depend on the merged model.

        Args:
            task: the task in the recipe.
            rows: the rows of its dataset.
            scorer: the scorer of this kind.
            cache_folder: the folder for files that later runs use again.
            dataset_commit: the pinned commit of the dataset, None if unknown.
            batch_size: the number of examples that go through the model together.
            load_metric: the loader of metrics outside of this package.

        Raises:
            EvaluationError: the task does not fit its dataset or the base model.
        """
        ...


@runtime_checkable
class HeadKind(Protocol):
    """Kind of task that the own head of a checkpoint can score."""

    def open_head_scorer(
        self, base_folder: Path, base: Checkpoint, head: OwnHead, *, identity: str, device: str = "cpu"
    ) -> Any:
        """Return a scorer for the head of a checkpoint.

        Args:
            base_folder: the folder of the base model.
            base: its weights.
            head: the head.
            identity: the commit of the base model, used as a key of the cache.
            device: the torch device.
        """
        ...
