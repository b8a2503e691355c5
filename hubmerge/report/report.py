"""Report of a run, the content of `hubmerge.json`: one `StepReport` for each step, in a short form for earlier steps.

The classes are frozen dataclasses that are written as JSON and read back without loss. Keys are sorted and floats are
written with `repr`, so that equal reports give equal bytes. The whole report of each step is in a file of its own.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from pydantic import TypeAdapter

from hubmerge.errors import HubmergeError
from hubmerge.report.abridged import WHOLE_STEPS, abridge, lines_text, row_text
from hubmerge.report.accuracy import AccuracyMatrix
from hubmerge.report.file_list import FileList, FileRecord
from hubmerge.report.form import NEW_KEYS, REPORT_VERSION, check_form, needed_version
from hubmerge.report.inputs import CombinedPart, MergedModel, ModelReport, TaskReport, main_metric, omit_unused_inputs
from hubmerge.report.licenses import License
from hubmerge.report.stages import StageReport, omit_unused_stages
from hubmerge.report.step import MetricValue, Scores, StepReport, number_or_none, read_as, with_digests
from hubmerge.report.step_statistics import MatrixStats, Spread, StepSimilarity, TensorSummary
from hubmerge.report.taken_out import taken_out_tasks
from hubmerge.support.names import REPORT_FILE, history_file
from hubmerge.support.records import record
from hubmerge.support.strict_json import StrictJSONError, read_strict_json
from merge_recipes.canonical import canonical_report_json, text_digest

__all__ = [
    "CombinedPart",
    "FileList",
    "FileRecord",
    "License",
    "MatrixStats",
    "MergedModel",
    "MetricValue",
    "ModelReport",
    "RunReport",
    "Scores",
    "Spread",
    "StageReport",
    "StepReport",
    "StepSimilarity",
    "TaskReport",
    "TensorSummary",
    "main_metric",
]

_NO_SEAL = '\n  "seal": null,\n'


@record
@dataclass(frozen=True)
class RunReport:
    """Report of a run after its last finished step, the content of `hubmerge.json`.

    `to_json` writes the newest version of the form, with its seal. A report that was read keeps its version and seal.
    """

    base_model: ModelReport
    merge_method: str
    recipe_digest: str
    parameters: dict[str, Any] = field(default_factory=dict)
    tasks: tuple[TaskReport, ...] = ()
    steps: tuple[StepReport, ...] = ()
    base_scores: Scores = field(default_factory=dict)
    own_scores: Scores = field(default_factory=dict)  # of each task's own checkpoint alone
    versions: dict[str, str] = field(default_factory=dict)  # tool -> version
    all_files: FileList = field(default_factory=dict)  # of the last step, except this report; empty in version 1
    version: int = field(default=REPORT_VERSION, compare=False)
    seal: str | None = field(default=None, compare=False)  # digest of everything else in the report
    kept_files: dict[str, str] = field(default_factory=dict)  # of other people: path -> digest as the Hub lists it
    kept_metadata: dict[str, Any] = field(default_factory=dict)  # of other people in the card
    state_dtype: str = "float64"  # of the states; written if it is not float64
    older_steps: int = 0  # merged before version 3: their states have the sketches of all steps
    stages: tuple[StageReport, ...] = ()  # merges of other documents of the recipe's file, before the last step
    tokenizer: MergedModel | None = None  # the model that only lends its tokenizer

    def with_step(self, step: StepReport) -> RunReport:
        """Return the report with a step added or replaced; the digests from this step on are computed anew."""
        steps = {report.step: report for report in self.steps} | {step.step: step}
        chained = with_digests([steps[number] for number in sorted(steps)], step.step)
        report = dataclasses.replace(self, steps=chained)
        return report if self.steps and self.steps[-1].step == chained[-1].step else report._without_files()

    def broken_digest(self) -> int | None:
        """Return the first step whose digest does not match its content, None if all match.

        From version 3 on, only the last steps have their content here. The seal covers the digests of the others.
        """
        first = 1 if self.version < 3 else len(self.steps) - WHOLE_STEPS + 1
        for report, expected in zip(self.steps, with_digests(self.steps, first), strict=True):
            if report.digest != expected.digest:
                return report.step
        return None

    @property
    def has_broken_seal(self) -> bool:
        """True if the report was changed after it was sealed. A report of version 1 has no seal to break."""
        return self.version > 1 and self.seal != self._digest()

    def _digest(self) -> str:
        if self.version < 3:
            return text_digest(canonical_report_json({**self.to_dict(), "seal": None}))
        return text_digest(self._unsealed_text())

    @property
    def history_files(self) -> dict[str, str]:
        """The digest of the file in `history/` of each step, by path; none before version 3."""
        return {} if self.version < 3 else {history_file(step.step): str(step.digest) for step in self.steps}

    def abridged(self) -> RunReport:
        """Return the report as `hubmerge.json` has it: with short forms of earlier steps."""
        return dataclasses.replace(self, steps=abridge(self.steps, {one.name: one.main_metric for one in self.tasks}))

    def until(self, step: int) -> RunReport:
        """Return the report as it was after `step`, without later steps and their tasks."""
        kept = self._without_files() if self.steps and self.steps[-1].step > step else self
        seen = {task.name for task in self.tasks if task.step <= step}
        return dataclasses.replace(
            kept,
            tasks=tuple(task for task in self.tasks if task.step <= step),
            base_scores={name: scores for name, scores in self.base_scores.items() if name in seen},
            steps=tuple(report for report in self.steps if report.step <= step),
            own_scores={name: scores for name, scores in self.own_scores.items() if name in seen},
            older_steps=min(self.older_steps, step),
        )

    def _without_files(self) -> RunReport:
        """Return the report without what belongs to the files of its last step."""
        return dataclasses.replace(self, all_files={}, kept_files={}, kept_metadata={})

    def accuracy_matrix(self, *, counts_all: bool = False) -> AccuracyMatrix:
        """Return `R[t][j]`, the main metric of task j after step t; `counts_all` is for cards before form 9."""
        out = {} if counts_all else taken_out_tasks(self.tasks, self.steps, self.own_scores)
        names, firsts = tuple(task.name for task in self.tasks), tuple(task.step for task in self.tasks)
        matrix = AccuracyMatrix(names, firsts, taken_out=out)
        for report in self.steps:
            if row := self.main_scores(report.scores):
                matrix = matrix.record(report.step, row)
        return matrix

    def main_scores(self, scores: Scores) -> dict[str, float]:
        """Return each task's main metric in `scores`, for the tasks that have it."""
        if not scores:
            return {}
        values = {name: scores[name].get(metric) for name, metric in self._main_metrics.items() if name in scores}
        return {name: float(value) for name, value in values.items() if isinstance(value, (int, float))}

    @cached_property
    def _main_metrics(self) -> dict[str, str]:
        return {task.name: task.main_metric for task in self.tasks}

    def other_metrics(self) -> list[tuple[str, str, list[float | None]]]:
        """Return the metrics outside of the accuracy matrix.

        Returns:
            (task, metric, [value of the base model, of the own checkpoint, of the merged model]) for each metric.
        """
        if not self.steps:
            return []
        columns = (self.base_scores, self.own_scores, self.steps[-1].scores)
        return [
            (task.name, metric, [number_or_none(scores.get(task.name, {}).get(metric)) for scores in columns])
            for task in self.tasks
            for metric, value in sorted(columns[-1].get(task.name, {}).items())  # as in the file
            if metric != task.main_metric and number_or_none(value) is not None
        ]

    def other_metrics_text(self) -> str:
        """Return `other_metrics` as a table for a terminal, an empty text if there are none."""
        rows = [["task", "metric", "base model", "own checkpoint", "this model"]]
        for task, metric, values in self.other_metrics():
            rows.append([task, metric, *("-" if value is None else f"{value:.4f}" for value in values)])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(lines) if len(rows) > 1 else ""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        content = self._values_beside_steps()
        content["steps"] = [step.to_dict() for step in self.steps]
        return content

    def _values_beside_steps(self) -> dict[str, Any]:
        content = dataclasses.asdict(dataclasses.replace(self, steps=()))
        omit_unused_inputs(content)
        omit_unused_stages(content)
        if self.version < 3:
            for key in NEW_KEYS:
                del content[key]
        return content

    @property
    def is_joint(self) -> bool:
        """True if the last step merged several models at once."""
        return bool(self.steps) and bool(self.steps[-1].inputs)

    @cached_property
    def models(self) -> tuple[MergedModel, ...]:
        """The models in the merged model of the last step, in merge order."""
        if self.is_joint:
            return self.steps[-1].inputs
        return tuple(MergedModel(one.name, one.reference, one.commit, one.licenses) for one in self.steps)

    @cached_property
    def combined_steps(self) -> range:
        """The steps whose states were added instead of being merged one after another; from 1, perhaps none."""
        last = max((step.step for step in self.steps if step.combined), default=0)
        return range(1, last + 1)

    @property
    def adds_up_statistics(self) -> bool:
        """True if the steps were merged without averaging: there are no statistics, or they count as weights."""
        return bool(self.steps) and self.steps[0].tensors.averaged is None

    def to_json(self) -> str:
        """Return the text of `hubmerge.json`, sealed: sorted keys, each step in one line, a newline at the end."""
        reads = [step.read for step in self.abridged().steps if step.read is not None]
        more_data = [one for task in self.tasks for one in task.more_data]
        more_data += [one for read in reads for one in read.more_data]
        version = needed_version(
            stages=bool(self.stages),
            read=bool(reads),
            tokenizer=any(lent is not None for lent in (self.tokenizer, *(stage.tokenizer for stage in self.stages))),
            data=bool(more_data),
            splits=any(one.split is not None for one in more_data),
        )
        unsealed = dataclasses.replace(self, version=version)._unsealed_text()
        return unsealed.replace(_NO_SEAL, f'\n  "seal": {json.dumps(text_digest(unsealed))},\n', 1)

    def _unsealed_text(self) -> str:
        """Return the text of `hubmerge.json` with null in place of the seal."""
        values = {**self._values_beside_steps(), "seal": None}
        texts = {key: lines_text(value) for key, value in values.items()}
        rows = [row_text(step) for step in self.abridged().steps]
        texts["steps"] = "[\n    " + ",\n    ".join(rows) + "\n  ]" if rows else "[]"
        return "{\n  " + ",\n  ".join(f"{json.dumps(key)}: {texts[key]}" for key in sorted(texts)) + "\n}\n"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunReport:
        """Return the report that `to_dict` made plain.

        Raises:
            HubmergeError: the report has a newer format, or the values are not a report.
        """
        return cls.from_json(json.dumps(data))

    @classmethod
    def from_json(cls, text: str) -> RunReport:
        """Return the report that `to_json` wrote.

        Raises:
            HubmergeError: the report has a newer format, or the text is not a report.
        """
        try:
            data = read_strict_json(text)
        except StrictJSONError as error:
            raise HubmergeError(f"{REPORT_FILE}: {error}", file=REPORT_FILE) from error
        check_form(data)
        report = read_as(_run_adapter(), text, REPORT_FILE)
        numbers = [step.step for step in report.steps]
        if numbers != list(range(1, len(numbers) + 1)):
            raise HubmergeError(
                f"{REPORT_FILE}: steps are not numbered 1, 2, 3 and so on",
                hint="restore the file from the repo's history",
                file=REPORT_FILE,
            )
        return report


@cache
def _run_adapter() -> TypeAdapter[RunReport]:
    return TypeAdapter(RunReport)
