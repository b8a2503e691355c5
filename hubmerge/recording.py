"""What is written down of a run: one report a step, from the figures of the merge to the file in the work folder."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from hubmerge.executor import StepFigures
from hubmerge.measures import measures
from hubmerge.report import ModelReport, RunReport, Scores, StepReport
from hubmerge.sources import file_digest
from hubmerge.state import MergeState
from hubmerge.stream import Stream
from hubmerge.workspace import Workspace

FIGURES_FILE = "figures.json"
LIBRARIES = ("hubmerge", "torch", "transformers", "huggingface_hub", "safetensors")


def recorded_report(stream: Stream, published: RunReport | None, workspace: Workspace) -> RunReport:
    """Return the longest report of this very stream that the target or the work folder holds, or an empty one."""
    fresh = RunReport(
        base_model=ModelReport(str(stream.base.reference), stream.base.commit),
        merge_method=stream.recipe.merge_method,
        recipe_digest=stream.lock.recipe,
        parameters=dict(stream.recipe.parameters),
        versions={name: version(name) for name in LIBRARIES},
    )
    known = [report for report in (published, _local_report(stream, workspace)) if report is not None]
    longest = max(known, key=lambda report: len(report.steps), default=fresh)
    return replace(longest, recipe_digest=fresh.recipe_digest, versions=fresh.versions)


def _local_report(stream: Stream, workspace: Workspace) -> RunReport | None:
    if not workspace.report_file.is_file():
        return None
    report = RunReport.from_json(workspace.report_file.read_text(encoding="utf-8"))
    same = stream.common_steps(report)
    return report.until(same) if same else None


def step_report(
    stream: Stream, step: int, state: MergeState, scores: Scores, folder: Path, rounding: float | None
) -> StepReport:
    """Return the report of a step whose weights lie in `folder`."""
    locked = stream.lock.models[step - 1]
    figures = StepFigures.from_json((state.folder / FIGURES_FILE).read_text(encoding="utf-8"))
    return StepReport(
        step=step,
        name=locked.name,
        reference=str(locked.reference),
        commit=locked.commit,
        **measures(figures, [entry.name for entry in stream.entries]),
        scores=scores,
        rounding=rounding,
        chain_digest=stream.chain[step],
        files={path.name: file_digest(path) for path in sorted(folder.glob("*.safetensors"))},
        state_digest=state.digest,
    )
