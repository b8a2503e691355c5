"""Accuracy matrix R[t][j], the accuracy on task j after step t, and the measures computed from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hubmerge.report.shown import FIRST_SHOWN, is_shown, shown
from hubmerge.support.text import listed

AVERAGE_ACCURACY_DEFINITION = "ACC_t = mean of R[t][j] over the tasks j seen up to step t"
BACKWARD_TRANSFER_DEFINITION = "BWT = mean over the tasks j first seen at a step s < T of (R[T][j] - R[s][j])"
FORGETTING_DEFINITION = "forgetting = mean over the same tasks of (max over t of R[t][j], s <= t <= T, - R[T][j])"
SHARE_OF_OWN_DEFINITION = "share kept = mean over the tasks j of R[T][j] / (accuracy of task j's own checkpoint)"


@dataclass(frozen=True)
class AccuracyMatrix:
    """Accuracies between 0 and 1, one row per scored step, one column per task.

    Each task is first seen at the step that merged its checkpoint, by default task j at step j. Several tasks may be
    first seen at the same step. A task whose checkpoint was taken out of the merge keeps its column, and counts in no
    mean from that step on.

    >>> matrix = AccuracyMatrix(("digits", "shapes")).record(1, {"digits": 0.9})
    >>> matrix = matrix.record(2, {"digits": 0.8, "shapes": 0.7})
    >>> round(matrix.average(2), 3), round(matrix.backward_transfer(), 3)
    (0.75, -0.1)
    """

    tasks: tuple[str, ...]
    first_steps: tuple[int, ...] = ()  # 1-based, one per task; empty: 1, 2, 3, ...
    rows: Mapping[int, Mapping[str, float]] = field(default_factory=dict)  # step -> task -> accuracy
    taken_out: Mapping[str, int] = field(default_factory=dict)  # task -> step that took its checkpoint out

    def __post_init__(self) -> None:
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"task names must differ: {list(self.tasks)}")
        if not self.first_steps:
            object.__setattr__(self, "first_steps", tuple(range(1, len(self.tasks) + 1)))
        if len(self.first_steps) != len(self.tasks):
            raise ValueError(f"{len(self.tasks)} tasks but {len(self.first_steps)} first steps")

    def record(self, step: int, scores: Mapping[str, float]) -> AccuracyMatrix:
        """Return a matrix with row `step` set to `scores` (accuracies between 0 and 1 by task).

        Raises:
            ValueError: a task is not in the matrix, or a value is not finite.
        """
        for task, value in scores.items():
            if task not in self.tasks:
                raise ValueError(f"no task named {task!r} in the matrix; tasks: {', '.join(self.tasks)}")
            if not math.isfinite(value):
                raise ValueError(f"score of {task!r} after step {step} is {value}")
        return replace(self, rows={**self.rows, step: {task: float(value) for task, value in scores.items()}})

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps with a row, in order."""
        return tuple(sorted(self.rows))

    @property
    def shown_steps(self) -> list[int | None]:
        """The steps with a row that tables show; None stands for a gap."""
        rows = [step for step in self.steps if is_shown(step, self._last())]
        gap = len(rows) < len(self.steps)
        early = [step for step in rows if step <= FIRST_SHOWN]
        return [*early, None, *rows[len(early) :]] if gap else [*rows]

    def extremes(self, task: str) -> tuple[float, int, float, int] | None:
        """Return the best score of a task and its step, and the worst one; None if the task has no score."""
        scores = [(value, step) for step in self.steps if (value := self.value(step, task)) is not None]
        if not scores:
            return None
        best = max(scores, key=lambda score: (score[0], -score[1]))
        worst = min(scores)
        return (*best, *worst)

    def seen(self, step: int) -> tuple[str, ...]:
        """Return the tasks first seen at `step` or before, in the order of the columns."""
        return tuple(task for task, first in zip(self.tasks, self.first_steps, strict=True) if first <= step)

    def counted(self, step: int) -> tuple[str, ...]:
        """Return the tasks seen up to `step` whose checkpoints are in the model then, in the order of the columns."""
        return tuple(task for task in self.seen(step) if self.taken_out.get(task, step + 1) > step)

    def value(self, step: int, task: str) -> float | None:
        """Return R[step][task], None if it was not scored."""
        return self.rows.get(step, {}).get(task)

    def average(self, step: int) -> float | None:
        """Return ACC_t, the mean over the counted tasks of `step`; None unless all of them were scored."""
        return mean_or_none([self.value(step, task) for task in self.counted(step)])

    def counted_average(self, scores: Mapping[str, float]) -> float | None:
        """Return the mean of other scores, such as those of the base model, over the tasks counted after the last step.

        Without a row in the matrix, it is the mean over all tasks.
        """
        return mean_or_none([scores.get(task) for task in (self.counted(self._last()) if self.rows else self.tasks)])

    def backward_transfer(self) -> float | None:
        """Return the mean change of earlier tasks since they were first seen; negative is a loss.

        None for a stream of one step, or if a score is missing.
        """
        last = self._last()
        return mean_or_none([_minus(self.value(last, t), self.value(first, t)) for t, first in self._earlier(last)])

    def forgetting(self) -> float | None:
        """Return the mean loss of earlier tasks from their best score, at least 0; None as for `backward_transfer`."""
        last = self._last()
        drops = []
        for task, first in self._earlier(last):
            kept = [self.value(step, task) for step in self.steps if step >= first]
            numbers = [value for value in kept if value is not None]
            drops.append(_minus(max(numbers, default=None), self.value(last, task)))
        return mean_or_none(drops)

    def share_of_own(self, own: Mapping[str, float]) -> float | None:
        """Return the mean share of the own accuracies that the merged model keeps after the last step.

        Tasks without an own accuracy, or with one of 0, are left out; None if no task is left.
        """
        last = self._last()
        pairs = [(self.value(last, task), own.get(task)) for task in self.counted(last)]
        return mean_or_none([value / best for value, best in pairs if value is not None and best])

    def to_dict(self) -> dict[str, Any]:
        """Return the matrix as plain JSON values."""
        data: dict[str, Any] = {"tasks": list(self.tasks), "first_steps": list(self.first_steps)}
        data["rows"] = {str(step): dict(self.rows[step]) for step in self.steps}
        return {**data, "taken_out": dict(self.taken_out)} if self.taken_out else data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AccuracyMatrix:
        """Return the matrix that `to_dict` made plain."""
        rows = {int(step): dict(row) for step, row in data["rows"].items()}
        return cls(tuple(data["tasks"]), tuple(data["first_steps"]), rows, dict(data.get("taken_out", {})))

    def to_text(
        self, base: Mapping[str, float] | None = None, own: Mapping[str, float] | None = None, *, defined: bool = True
    ) -> str:
        """Return a table in percent for a terminal, with the measures below it.

        Args:
            base: accuracies of the base model, for a first row.
            own: accuracies of each task's own checkpoint, for a last row.
            defined: True for measures with their definitions.
        """
        tasks = [task for part in shown(self.tasks) for task in part]
        width = max([7, *(len(task) for task in tasks)])
        first = 4 if not (base or own) else 5
        lines = [f"{'step':>{first}}  " + "  ".join(f"{task:>{width}}" for task in (*tasks, "average"))]
        lines += self._scores_line("base", base, tasks, (first, width))
        for step in self.shown_steps:
            if step is None:
                lines.append(f"{'...':>{first}}")
                continue
            values = [*(self.value(step, task) for task in tasks), self.average(step)]
            lines.append(f"{step:>{first}}  " + "  ".join(f"{percent(value):>{width}}" for value in values))
        lines += self._scores_line("own", own, tasks, (first, width))
        lines.append("")
        lines.extend(f"{value:>7}  {name if defined else name.partition(', ')[0]}" for name, value in self.measures())
        lines += [f"{'':>7}  {self.remark}"] if self.remark else []
        return "\n".join(lines)

    @property
    def remark(self) -> str:
        """Sentence about the tasks that count in no mean any more; empty if all count."""
        out = [task for task in self.tasks if self.taken_out.get(task, self._last() + 1) <= self._last()]
        if not out:
            return ""
        which = "its checkpoint was" if len(out) == 1 else "their checkpoints were"
        return f"not counted, because {which} taken out: {listed(out)}"

    def _scores_line(
        self, name: str, scores: Mapping[str, float] | None, tasks: Sequence[str], widths: tuple[int, int]
    ) -> list[str]:
        if not scores:
            return []
        average = self.counted_average(scores)
        cells = (percent(value) for value in (*(scores.get(task) for task in tasks), average))
        return [f"{name:>{widths[0]}}  " + "  ".join(f"{cell:>{widths[1]}}" for cell in cells)]

    def measures(self) -> list[tuple[str, str]]:
        """Return (definition, value in percent) of each measure after the last step."""
        if not self.rows:
            return []
        return [
            (f"average accuracy, {AVERAGE_ACCURACY_DEFINITION}", percent(self.average(self._last()))),
            (f"backward transfer, {BACKWARD_TRANSFER_DEFINITION}", percent(self.backward_transfer(), "+")),
            (f"forgetting, {FORGETTING_DEFINITION}", percent(self.forgetting())),
        ]

    def _last(self) -> int:
        return max(self.rows, default=0)

    def _earlier(self, last: int) -> list[tuple[str, int]]:
        """Return the counted tasks first seen before `last`, each with its first step."""
        counted = {*self.counted(last)}
        pairs = zip(self.tasks, self.first_steps, strict=True)
        return [(task, first) for task, first in pairs if first < last and task in counted]


def percent(value: float | None, sign: str = "") -> str:
    """Return `value` times 100 with one decimal, or a dash; never "-0.0"."""
    if value is None:
        return "-"
    text = f"{100 * value:{sign}.1f}"
    return text if float(text) != 0 else f"{0:{sign}.1f}"


def _minus(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left - right


def mean_or_none(values: list[float | None] | list[float]) -> float | None:
    """Return the mean of values, None if there are none or one is missing."""
    numbers = [value for value in values if value is not None]
    return math.fsum(numbers) / len(numbers) if numbers and len(numbers) == len(values) else None
