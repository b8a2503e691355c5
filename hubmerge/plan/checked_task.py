"""Tasks whose datasets were opened, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubmerge.evaluation.task_keys import KINDS_WITHOUT_CLASSES
from hubmerge.plan.open_data import OpenedData
from hubmerge.support.text import counted, listed
from merge_recipes import Task

if TYPE_CHECKING:
    from hubmerge.evaluation.preview import DatasetPreview


@dataclass(frozen=True)
class CheckedTask:
    """A task whose dataset was opened.

    Attributes:
        name: the name of the task.
        rows: the number of rows of the split, None if only a download tells it.
        classes: the number of classes, None if there are none or only a download tells it.
        max_examples: the number of examples to score, None for all.
        sample: how the examples are drawn.
        unchecked: what only a download tells.
        notes: what is allowed, but perhaps a mistake.
    """

    name: str
    rows: int | None
    classes: int | None
    max_examples: int | None
    sample: str
    unchecked: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def examples(self) -> int | None:
        """The number of examples to score, None if only a download tells it."""
        known = [number for number in (self.rows, self.max_examples) if number is not None]
        return None if self.rows is None and self.max_examples is None else min(known)

    @property
    def short(self) -> str:
        """The name with the number of examples, for a list of tasks."""
        examples = "all" if self.examples is None else str(self.examples)
        return f"{self.name} {examples}" + (f" of {self.rows}" if self.rows not in {None, self.examples} else "")

    def __str__(self) -> str:
        parts = [f"{self.name}: {self._examples()}"]
        parts += [counted(self.classes, "class", "classes")] if self.classes is not None else []
        parts += [f"known after the download: {', '.join(self.unchecked)}"] if self.unchecked else []
        return "; ".join(parts)

    def _examples(self) -> str:
        wanted = self.max_examples
        if self.rows is None:
            return "all examples" if wanted is None else f"at most {counted(wanted, 'example')} ({self.sample})"
        if wanted is None or wanted >= self.rows:
            return f"all {counted(self.rows, 'example')}"
        return f"{wanted} of {counted(self.rows, 'example')} ({self.sample})"


def describe_task(task: Task, data: OpenedData, classes: int | None, entries: Collection[str]) -> CheckedTask:
    """Return a task with what the preview of its data tells.

    Args:
        task: the task, with its sample as the steps so far drew it.
        data: its data.
        classes: the number of its classes, None if there are none or they are not known.
        entries: the names of the entries of the stream.
    """
    source, preview = task.dataset, data.preview
    unchecked = ["the number of examples"] if preview.rows is None else []
    if source.label in preview.features and _has_classes(task) and preview.labels is None:
        unchecked.append("the labels")
    drawn = f"balanced sample, seed {source.seed}" if _has_classes(task) else f"sample, seed {source.seed}"
    return CheckedTask(
        name=task.name,
        rows=preview.rows,
        classes=classes,
        max_examples=data.max_examples,
        sample="from the start of the split" if source.sample == "first" else drawn,
        unchecked=tuple(unchecked),
        notes=tuple(_notes(task, preview, entries)),
    )


def _has_classes(task: Task) -> bool:
    return task.kind not in KINDS_WITHOUT_CLASSES


def _notes(task: Task, preview: DatasetPreview, entries: Collection[str]) -> Iterator[str]:
    wanted = task.dataset.max_examples
    if wanted is not None and preview.rows is not None and preview.rows < wanted:
        yield f"task {task.name}: max_examples is {wanted}, but the split has {counted(preview.rows, 'example')}"
    repeated = [name for name, count in Counter(_class_names(task, preview)).items() if count > 1]
    if repeated:
        yield f"task {task.name}: several classes have one name, so that they cannot be told apart: {listed(repeated)}"
    if task.model is not None and task.model not in entries:
        yield f"task {task.name}: the stream has no entry {task.model} yet; the task is scored from step 1 on"


def _class_names(task: Task, preview: DatasetPreview) -> Sequence[str]:
    """Return the names of the classes in the recipe, else those in the features of the dataset, if it has them."""
    if task.class_names is not None:
        return task.class_names
    return getattr(preview.columns.get(task.dataset.label), "names", None) or ()


def tasks_text(tasks: Sequence[CheckedTask]) -> Iterator[str]:
    """Yield the lines of a plan about tasks."""
    for number, task in enumerate(tasks):
        yield f"{'evaluate' if number == 0 else '        '} {task}"
