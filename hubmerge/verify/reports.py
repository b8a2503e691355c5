"""Comparison of the numbers of two reports."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hubmerge.report.form import REPORT_VERSION
from hubmerge.report.report import RunReport, Scores, StepReport
from hubmerge.stream.weight_choice import WEIGHT_FILES
from hubmerge.support.text import counted
from hubmerge.support.version import VERSION
from hubmerge.verify.finding import Finding

TOLERANCE = 1e-6
"""Largest relative difference between recomputed and published values that counts as equal.

For weights it is relative to the norm of the merged delta. Another machine rounds differently, by about 1e-12 a step.
"""

IGNORED_KEYS = (
    "digest", "state_digest", "files", "all_files", "kept_files", "kept_metadata", "seal", "version", "versions",
    "seconds",
)  # fmt: skip
"""Keys of the report that are not compared: digests differ wherever bytes differ, versions and times vary.

Files and states are compared on their own.
"""


NOT_MEASURED = (
    "accumulated_norm", "drift", "removed_share", "scale", "similarities", "similarity",
)  # fmt: skip
"""Keys of a step that need the state before it, which a combined stream does not have."""


def compare_reports(published: RunReport, recomputed: RunReport) -> Iterator[Finding]:
    """Compare the scores and the statistics of two reports."""
    if published.steps[-1].step in published.combined_steps:
        recomputed = _as_combined(published, recomputed)
    # Other versions, and this one in other forms of reports, warn of other things.
    if published.versions.get("hubmerge") != VERSION or published.version < REPORT_VERSION:
        published, recomputed = (_without_warnings(report) for report in (published, recomputed))
    published, recomputed = (_without_file_choices(report) for report in (published, recomputed))
    paths = list(_differing_paths(published.to_dict(), recomputed.to_dict(), ""))
    scores = [path for path in paths if "scores" in path]
    others = [path for path in paths if "scores" not in path]
    number = sum(len(values) for values in recomputed.steps[-1].scores.values())
    if scores:
        yield Finding("scores", "differs", f"recomputed: {scores[0]} differs")
    else:
        are = "is" if number == 1 else "are"
        yield Finding("scores", "same", f"recomputed: {counted(number, 'score')} {are} the same")
    if others:
        yield Finding("statistics", "differs", f"recomputed: {others[0]} differs")
    else:
        yield Finding("statistics", "same", "recomputed: norms, scale and ranks are the same")


def _as_combined(published: RunReport, recomputed: RunReport) -> RunReport:
    """Return a recomputed report with what the published one of a combined stream cannot have measured."""
    last = _without_unmeasured(published.steps[-1], recomputed.steps[-1])
    return replace(recomputed, steps=(*recomputed.steps[:-1], last))


def _without_unmeasured(published: StepReport, recomputed: StepReport) -> StepReport:
    kept = {key: value for key in NOT_MEASURED if (value := getattr(published, key)) is None or value == ()}
    return replace(recomputed, **{**kept, "warnings": published.warnings}, combined=published.combined)


def compare_step_statistics(
    published: StepReport, recomputed: StepReport, *, combined: bool = False
) -> Iterator[Finding]:
    """Compare the norms, ranks and similarities of a step; files, rounding, scores, licenses are not compared here.

    Args:
        published: the published report of the step.
        recomputed: the recomputed one.
        combined: whether the step is one of a combined stream, without what needs the state before it.
    """
    recomputed = _without_unmeasured(published, recomputed) if combined else recomputed
    other = dict.fromkeys(("scores", "files", "rounding", "warnings", "licenses", "head", "read"))
    if recomputed.drift is None or published.read is not None:  # known only once the model is written
        other["drift"] = None
    theirs, ours = ({**report.to_dict(), **other} for report in (published, recomputed))
    path = next(_differing_paths(theirs, ours, f"steps[{published.step - 1}]"), None)
    if path is not None:
        yield Finding("statistics", "differs", f"recomputed: {path} differs")


def compare_scores(published: StepReport, recomputed: Scores) -> Iterator[Finding]:
    """Compare the scores of an earlier merged model, which no tag proves."""
    path = next(_differing_paths(published.scores, recomputed, f"steps[{published.step - 1}].scores"), None)
    if path is None:
        number = counted(sum(len(values) for values in recomputed.values()), "score")
        yield Finding("scores", "same", f"recomputed: {number} of step {published.step}, which has no tag")
    else:
        yield Finding("scores", "differs", f"recomputed: {path} differs")


def _without_warnings(report: RunReport) -> RunReport:
    return replace(report, steps=tuple(replace(step, warnings=()) for step in report.steps))


def _without_file_choices(report: RunReport) -> RunReport:
    """Return a report without the sentences on files that were not read, which may have changed since."""
    warnings = (tuple(one for one in step.warnings if not one.startswith(WEIGHT_FILES)) for step in report.steps)
    pairs = zip(report.steps, warnings, strict=True)
    return replace(report, steps=tuple(replace(step, warnings=kept) for step, kept in pairs))


def _differing_paths(one: Any, other: Any, path: str) -> Iterator[str]:
    """Yield the key paths, such as `steps[1].scale`, at which two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other} - set(IGNORED_KEYS)):
            yield from _differing_paths(one.get(key), other.get(key), f"{path}.{key}" if path else key)
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        for index, (ours, theirs) in enumerate(zip(one, other, strict=True)):
            yield from _differing_paths(ours, theirs, f"{path}[{index}]")
    elif isinstance(one, float) and isinstance(other, float):
        if not math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-9):
            yield path
    elif _without_wording(one, path) != _without_wording(other, path):
        yield path


def _without_wording(value: Any, path: str) -> Any:
    """Return a value of the report; of a warning, the wording of which depends on the version, its numbers alone."""
    return re.findall(r"\d+(?:\.\d+)?", value) if ".warnings[" in path and isinstance(value, str) else value
