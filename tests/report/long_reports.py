"""Reports of long streams."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache

from hubmerge.report.report import ModelReport, RunReport, Scores, StepReport, TaskReport
from hubmerge.report.step_statistics import MatrixStats, Spread, StepSimilarity, TensorSummary
from hubmerge.support.records import Number

KIND = "zero-shot-image-classification"


@cache
def long_report(steps: int, tasks: int = 0) -> RunReport:
    """Return the whole report of a stream; the first `tasks` entries have a task each.

    Of streams of more than a hundred steps, the last steps have 150 tensors and scores of all tasks, and the others
    less, so that the report is made fast.
    """
    base = ModelReport("local/base", "0" * 40)
    found = tuple(TaskReport(f"task-{number}", KIND, number, f"local/data-{number}") for number in range(1, tasks + 1))
    own: Scores = {task.name: {"accuracy": 0.9} for task in found}
    report = RunReport(base, "opcm", "sha256:" + "e" * 64, tasks=found, base_scores=own, own_scores=own)
    chained: list[StepReport] = []
    for number in range(1, steps + 1):
        full = steps <= 100 or number > steps - 30
        chained.append(
            _step(number, tasks, tensors=150 if steps > 100 and full else 2, full=full).with_digest(
                chained[-1].digest if chained else None
            )
        )
    return dataclasses.replace(report, steps=tuple(chained))


def reader(report: RunReport) -> Callable[[int], bytes]:
    """Return a function that reads the files in `history/` of a whole report."""

    def read(step: int) -> bytes:
        previous = report.steps[step - 2].digest if step > 1 else None
        return report.steps[step - 1].history_text(previous).encode()

    return read


def _step(number: int, tasks: int, *, tensors: int, full: bool) -> StepReport:
    scored = range(1, min(number, tasks) + 1) if full else range(number, min(number, tasks) + 1)
    layers: dict[str, Number | None] = {f"layers.{layer}": 0.25 for layer in range(12)}
    earlier = range(max(1, number - 64), number) if full else range(0)
    return StepReport(
        number, f"m{number}", f"local/m{number}", f"{number:040x}",
        1.0 + number / 7, 2.0 + number / 3, 1.0 + number / 9,
        TensorSummary(tensors, 0, Spread(3.0, 1, 5.0), Spread(0.1, 0.05, 0.2)),
        similarity=None if number == 1 else 0.01,
        scores={
            f"task-{task}": {"accuracy": ((number * 37 + task * 11) % 101) / 101, "confusion": [[1, 2], [3, 4]]}
            for task in scored
        },
        chain_digest=f"sha256:{number:064x}",
        files={"model.safetensors": f"{number:064x}"},
        matrices=tuple(MatrixStats(f"layers.{index}.weight", 3, 8, 0.1) for index in range(tensors)),
        similarities=tuple(
            StepSimilarity(one, f"m{one}", 0.1, layers if number - one <= 4 else {}) for one in earlier
        ),
        warnings=("a note",) if number % 50 == 1 else (),
    )  # fmt: skip
