"""What a kind of evaluation task is: one file with one class of this shape, and one line in `TASK_KINDS`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from hubmerge.checkpoints import Checkpoint
from hubmerge.report.report import MetricValue
from merge_recipes import Task

if TYPE_CHECKING:  # their libraries take seconds and hundreds of megabytes to import
    import datasets

    from hubmerge.evaluation.metrics import MetricLoader


class Weights(Protocol):
    """What a scorer loads: `hubmerge.checkpoints.Checkpoint` and anything shaped like it."""

    label: str
    tensors: Any  # mapping of tensor names to something that has a `shape`

    def read(self, name: str) -> torch.Tensor:
        """The tensor in its stored dtype."""
        ...


class Scorer(Protocol):
    """A model built once a run, whose weights are swapped step after step."""

    label: str

    def load(self, weights: Weights, *, check_frozen: bool = True) -> None:
        """Swap in the merged model, or with `check_frozen=False` any fine-tuned checkpoint."""
        ...

    def load_base(self) -> None:
        """Swap the base model's own weights back in."""
        ...


class PreparedTask(Protocol):
    """A task that is ready to score one model after another: everything that does not change is done."""

    @property
    def name(self) -> str:
        """The task's name in the recipe."""
        ...

    @property
    def examples(self) -> int:
        """How many examples are scored."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in order of their number; none where a task has no classes."""
        ...

    def score(self, scorer: Any) -> dict[str, MetricValue]:
        """The task's metrics for the model that `scorer` holds."""
        ...


class TaskKind(Protocol):
    """One kind of task; `name` is the Hub's name for it, and what a recipe calls it."""

    name: str

    def open_scorer(self, base_folder: Path, base: Checkpoint, *, identity: str, device: str = "cpu") -> Any:
        """A scorer that holds the base model. `identity`: the base model's commit, a key of the cache."""
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
        """Check the task against its dataset and do, once, all that does not depend on the merged model."""
        ...
