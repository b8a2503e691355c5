"""Results file of a study: one JSON object on each line, appended after each cell and read to continue."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from hubmerge.errors import HubmergeError
from hubmerge.report.accuracy import AccuracyMatrix
from hubmerge.study.cells import Cell
from hubmerge.support.records import Number, read_record, record

RESULTS_FILE, TABLE_FILE = "results.jsonl", "tables.json"


@record
@dataclass(frozen=True)
class StepResult:
    """Statistics of one step of a cell: scale, norms, and means over the weight matrices; None if not measured."""

    name: str
    scale: Number | None
    accumulated_norm: Number | None
    task_vector_norm: Number | None
    drift: Number | None
    cosine: Number | None
    removed_share: Number | None
    rank: Number | None


@record
@dataclass(frozen=True)
class CellResult:
    """Result of one cell.

    `matrix` is an `AccuracyMatrix` as plain values, with the scored steps as rows. `answers` has the packed answers
    after the last step, for each classification task; cells of version 0.1.0 have none. `seconds` has the time of
    scoring, and that of merging divided by the number of cells that share the merge.
    """

    digest: str
    series: str
    label: str
    method: str
    parameters: dict[str, Any]
    point: dict[str, Any]
    tasks: int
    seed: int | None
    round_to: str | None
    perturb: int | None
    order: tuple[str, ...]
    steps: tuple[StepResult, ...]
    matrix: dict[str, Any]
    seconds: Number
    share_of_own: Number | None = None
    answers: dict[str, str] = field(default_factory=dict)

    def renamed(self, cell: Cell) -> CellResult:
        """Return the result with the name and the seed of a cell that has the same digest."""
        return replace(self, series=cell.series, label=cell.label, point=cell.point, seed=cell.seed)

    @property
    def accuracies(self) -> AccuracyMatrix:
        """Accuracy matrix."""
        return AccuracyMatrix.from_dict(self.matrix)

    @property
    def average(self) -> float | None:
        """Average accuracy after the last step."""
        matrix = self.accuracies
        return matrix.average(matrix.steps[-1]) if matrix.steps else None

    @property
    def backward_transfer(self) -> float | None:
        """Backward transfer; None unless every step was scored."""
        return self.accuracies.backward_transfer()

    @property
    def forgetting(self) -> float | None:
        """Forgetting; None unless every step was scored."""
        matrix = self.accuracies
        return matrix.forgetting() if len(matrix.steps) == self.tasks else None


@record
@dataclass(frozen=True)
class References:
    """Accuracies of base model and checkpoints, and cosines between the task vectors, which all cells share.

    `cosines` is a square over `names`; `layers` has one for each layer.
    """

    digest: str
    names: tuple[str, ...]
    base: dict[str, Number]
    own: dict[str, Number]
    cosines: list[list[Number | None]] = field(default_factory=list)
    layers: dict[str, list[list[Number | None]]] = field(default_factory=dict)


class ResultsFile:
    """Results so far, by digest. An incomplete last line of an interrupted run is removed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cells: dict[str, CellResult] = {}
        self.references: dict[str, References] = {}
        if path.is_file():
            self._read()

    def add(self, result: CellResult | References) -> None:
        """Append a result, and return when it is on disk."""
        kind = "cell" if isinstance(result, CellResult) else "references"
        line = json.dumps({"kind": kind, **asdict(result)}, sort_keys=True, allow_nan=False, ensure_ascii=False)
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._take(result)

    def _take(self, result: CellResult | References) -> None:
        if isinstance(result, CellResult):
            self.cells[result.digest] = result
        else:
            self.references[result.digest] = result

    def _read(self) -> None:
        text = self.path.read_text(encoding="utf-8")
        whole, newline, rest = text.rpartition("\n")
        if rest:
            self.path.write_text(whole + newline, encoding="utf-8", newline="\n")
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                self._take(_result(line))
            except ValueError as error:
                raise HubmergeError(
                    f"{self.path}:{number}: not a result of a study: {error}",
                    hint="remove the line, or remove the file to compute all cells again",
                    file=str(self.path),
                    line=number,
                ) from error


@cache
def _adapters() -> dict[str, TypeAdapter[Any]]:
    return {"cell": TypeAdapter(CellResult), "references": TypeAdapter(References)}


def _result(line: str) -> CellResult | References:
    """Return the result that a line holds.

    Raises:
        ValueError: the line is not a result of a study.
    """
    data = json.loads(line)
    kind = data.pop("kind", None) if isinstance(data, dict) else None
    if kind not in _adapters():
        raise ValueError(f"expected a result of the kind cell or references, found {kind!r}")
    result: CellResult | References = read_record(_adapters()[kind], json.dumps(data))
    return result


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation (of the sample) over `count` cells; None without cells, or with one."""

    mean: float | None
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Summary:
        """Return the summary of the values that are not None."""
        numbers = [value for value in values if value is not None]
        mean = statistics.fmean(numbers) if numbers else None
        return cls(mean, statistics.stdev(numbers) if len(numbers) > 1 else None, len(numbers))

    def percent(self) -> str:
        """Return mean ± deviation in percent."""
        if self.mean is None:
            return "-"
        spread = "" if self.deviation is None else f" ± {100 * self.deviation:.1f}"
        return f"{100 * self.mean:.1f}{spread}"


def grouped(results: Sequence[CellResult], *keys: str) -> dict[tuple[Any, ...], list[CellResult]]:
    """Return the results by the values of some fields, in the order of first occurrence."""
    groups: dict[tuple[Any, ...], list[CellResult]] = {}
    for result in results:
        groups.setdefault(tuple(getattr(result, key) for key in keys), []).append(result)
    return groups


def longest(results: Sequence[CellResult]) -> list[CellResult]:
    """Return the results with the largest number of tasks."""
    most = max((result.tasks for result in results), default=0)
    return [result for result in results if result.tasks == most]
