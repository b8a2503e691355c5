"""What is written down of a run: one report a step, from the figures of the merge to the file in the work folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

from hubmerge.executor import StepStats
from hubmerge.executor.state import MergeState
from hubmerge.report.report import ModelReport, RunReport, Scores, StepReport
from hubmerge.run.measures import measures, rounding_warnings
from hubmerge.stream.stream import Stream
from hubmerge.support.files import write_text_atomic
from hubmerge.support.hashing import file_digest
from hubmerge.support.workspace import Workspace
from merge_recipes.canonical import canonical_document

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


def write_stats(figures: Sequence[StepStats], state: MergeState) -> None:
    """Keep the figures of the steps that led to a state beside it."""
    told = [one.to_dict() for one in figures]
    write_text_atomic(state.folder / FIGURES_FILE, canonical_document(told, indent=1, ascii_only=True))


def read_stats(folder: Path) -> dict[int, StepStats]:
    """The figures beside the state in `folder`, by step; none if there are none."""
    path = folder / FIGURES_FILE
    if not path.is_file():
        return {}
    told = [StepStats.from_dict(one) for one in json.loads(path.read_text(encoding="utf-8"))]
    return {figures.step: figures for figures in told}


def merged_report(stream: Stream, figures: StepStats, state_digest: str | None) -> StepReport:
    """Return what the merge tells of a step."""
    locked = stream.lock.models[figures.step - 1]
    return StepReport(
        step=figures.step,
        name=locked.name,
        reference=str(locked.reference),
        commit=locked.commit,
        **measures(figures, [entry.name for entry in stream.entries]),
        chain_digest=stream.chain[figures.step],
        state_digest=state_digest,
    )


def with_model(
    report: StepReport, folder: Path, scores: Scores, rounding: float | None, dtypes: Iterable[torch.dtype]
) -> StepReport:
    """The report of a step whose merged model lies in `folder`, its merged tensors rounded to `dtypes`."""
    files = {path.name: file_digest(path) for path in sorted(folder.glob("*.safetensors"))}
    warnings = (*report.warnings, *rounding_warnings(rounding, dtypes))
    return replace(report, files=files, scores=scores, rounding=rounding, warnings=warnings)
