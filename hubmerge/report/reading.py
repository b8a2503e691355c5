"""Report of the choice of the method that reads the merged model of a step out of its state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from hubmerge.report.inputs import DataReport
from hubmerge.support.records import Number, record


@record
@dataclass(frozen=True)
class ReadingReport:
    """A method that could read the state, its parameters, and the score of the model that it reads."""

    method: str
    score: Number
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Method and parameters in one line."""
        return reading_text(self.method, self.parameters)


@record
@dataclass(frozen=True)
class ReadReport:
    """The choice of a step: the task that decides, and all read-outs in the order of the recipe.

    `chosen` is the place of the chosen one, from 1. `scored` tells if the task is one of those in the tables of scores.
    """

    task: str
    dataset: str
    subset: str | None
    split: str
    commit: str
    metric: str
    best: Literal["highest", "lowest"]
    chosen: int
    readings: tuple[ReadingReport, ...]
    scored: bool = False
    more_data: tuple[DataReport, ...] = ()  # read beside the dataset

    @property
    def data(self) -> tuple[DataReport, ...]:
        """All repos and folders that the task reads: its dataset, then the others."""
        return (DataReport(self.dataset, self.commit), *self.more_data)

    @property
    def choice(self) -> ReadingReport | None:
        """The chosen read-out; None if there is none with its number."""
        return self.readings[self.chosen - 1] if 1 <= self.chosen <= len(self.readings) else None

    @property
    def text(self) -> str:
        """The choice in one line; empty if there is none."""
        if self.choice is None:
            return ""
        return f"{self.choice.text}: the best of {len(self.readings)} by {self.metric} on the task {self.task}"

    @property
    def best_place(self) -> int:
        """The place of the read-out with the best score, from 1; of equal scores the first one."""
        return best_place([one.score for one in self.readings], lowest=self.best == "lowest")

    def same_readings(self, other: ReadReport) -> bool:
        """Return True if two choices are between equal read-outs, by equal rules."""
        own, others = (
            (one.task, one.metric, one.best, [(each.method, each.parameters) for each in one.readings])
            for one in (self, other)
        )
        return own == others


def best_place(scores: list[float], *, lowest: bool = False) -> int:
    """Return the place of the best score, from 1; of equal scores the first one.

    Example:
        >>> best_place([0.5, 0.7, 0.7]), best_place([0.5, 0.7, 0.5], lowest=True)
        (2, 1)
    """
    return scores.index(min(scores) if lowest else max(scores)) + 1


def reading_text(method: str, parameters: dict[str, Any]) -> str:
    """Return a method and its parameters in one line."""
    return ", ".join([method, *(f"{name} {value}" for name, value in parameters.items())])
