"""Reports of steps: built from the statistics of the merge, kept beside states and in the work folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from hubmerge.errors import HubmergeError
from hubmerge.executor import StepStats, WrittenModel
from hubmerge.executor.state import MergeState
from hubmerge.plan.licenses import PlannedLicenses
from hubmerge.report.form import REPORT_VERSION
from hubmerge.report.history import report_until
from hubmerge.report.report import ModelReport, RunReport, Scores, StepReport
from hubmerge.run.kept_states import STATS_FILE, trust_written_state, write_digests
from hubmerge.run.measures import far_off_warnings, measures, rounding_warnings
from hubmerge.run.metadata_files import plugin_distributions
from hubmerge.stream.replacements import replaced_by
from hubmerge.stream.step_history import history_reader, is_written, write_history
from hubmerge.stream.stream import Stream
from hubmerge.stream.work_files import read_work_report
from hubmerge.support.files import write_text_atomic
from hubmerge.support.hashing import file_digest
from hubmerge.support.versions import LIBRARIES, installed_versions
from hubmerge.support.workspace import Workspace
from merge_recipes.canonical import canonical_document


def fresh_report(stream: Stream) -> RunReport:
    """Return the report of a stream without steps."""
    tasks = stream.recipe.evaluate.tasks if stream.recipe.evaluate is not None else ()
    plugins = plugin_distributions(stream.recipe.merge_method, (task.kind for task in tasks))
    return RunReport(
        base_model=ModelReport(str(stream.lock.base_model.reference), stream.lock.base_model.commit),
        merge_method=stream.recipe.merge_method,
        recipe_digest=stream.lock.recipe,
        parameters=dict(stream.recipe.parameters),
        state_dtype=stream.recipe.state_dtype,
        versions=installed_versions((*LIBRARIES, *sorted(set(plugins.values())))),
    )


def recorded_report(stream: Stream, published: RunReport | None, workspace: Workspace) -> RunReport:
    """Return the longest report of a stream in the target repo and the work folder, or an empty one.

    The steps of a report of an older form get files in the folder `history` of the work folder.
    """
    fresh = fresh_report(stream)
    known = [report for report in (published, _local_report(stream, workspace, published)) if report is not None]
    longest = max(known, key=lambda report: len(report.steps), default=fresh)
    if longest.version < REPORT_VERSION:
        write_history(workspace.history, longest, range(1, len(longest.steps) + 1))
        longest = replace(longest, older_steps=len(longest.steps), version=REPORT_VERSION)
    return replace(longest, recipe_digest=fresh.recipe_digest, versions=fresh.versions)


def _local_report(stream: Stream, workspace: Workspace, published: RunReport | None) -> RunReport | None:
    """Return the report in the work folder, without steps whose whole report is neither there nor published."""
    report = read_work_report(workspace)
    if report is None:
        return None
    same = stream.common_steps(report)
    if report.version >= REPORT_VERSION:
        steps = range(len(published.steps) + 1 if published is not None else 1, same + 1)
        missing = (step for step in steps if not is_written(workspace.history, report, step))
        same = min(same, next(missing, same + 1) - 1)
    try:
        read = history_reader(report, workspace.history, stream.target)
        return report_until(report, same, read) if same else None
    except HubmergeError:
        return None


def write_stats(stats: Sequence[StepStats], state: MergeState) -> None:
    """Write the statistics of the steps of a batch beside its state."""
    values = [step.to_dict() for step in stats]
    write_text_atomic(state.folder / STATS_FILE, canonical_document(values, indent=1, ascii_only=True))
    write_digests(state.folder)
    trust_written_state(state.folder)


def read_stats(folder: Path) -> dict[int, StepStats]:
    """Return the statistics beside the state in `folder`, by step; empty if there are none."""
    path = folder / STATS_FILE
    if not path.is_file():
        return {}
    stats = [StepStats.from_dict(values) for values in json.loads(path.read_text(encoding="utf-8"))]
    return {step.step: step for step in stats}


def record_steps(
    stream: Stream,
    steps: range,
    state: MergeState,
    so_far: RunReport,
    *,
    notes: Sequence[str] = (),
    heads: Mapping[int, str | None] | None = None,
    own_notes: Mapping[int, Sequence[str]] | None = None,
) -> RunReport:
    """Return a report with merged steps added.

    Args:
        stream: The stream.
        steps: Steps of a batch.
        state: State after the last of them, with the statistics of all.
        so_far: Report up to the step before them.
        notes: Warnings about the plan of the steps. A warning that an earlier step has is not repeated.
        heads: By step, the digest of the description of the checkpoint's own head.
        own_notes: By step, warnings about its checkpoint.
    """
    stats = read_stats(state.folder)
    report = so_far
    for step in steps:
        report = report.abridged()  # as a run reads it that continues after the last step
        kept = step == state.step and stream.needs_state(step)
        known = {warning for earlier in report.steps for warning in earlier.warnings}
        norms = state.manifest.task_vector_norms[:step]
        merged = merged_report(stream, stats[step], state.digest if kept else None, norms)
        merged = replace(merged, head=(heads or {}).get(step))
        own = (own_notes or {}).get(step, ())
        fresh = [note for note in dict.fromkeys((*notes, *own)) if note not in known]
        merged = replace(merged, warnings=(*fresh, *merged.warnings))
        report = report.with_step(merged).until(step)
    return report


def record_licenses(report: RunReport, steps: range, licenses: PlannedLicenses) -> RunReport:
    """Return a report with the licenses of the base model and of the checkpoints of a batch.

    A stream whose earlier steps were published without licenses, by version 0.1.0, stays without.
    """
    base = licenses.of_step(0)
    if steps.start > 1 and not report.base_model.licenses:
        return report
    report = replace(report, base_model=replace(report.base_model, licenses=base))
    for step in steps:
        report = report.with_step(replace(report.steps[step - 1], licenses=licenses.of_step(step)))
    return report


def merged_report(
    stream: Stream, stats: StepStats, state_digest: str | None, norms: Sequence[float] = ()
) -> StepReport:
    """Return the report of a merged step, without its model.

    Args:
        stream: The stream.
        stats: Statistics of the step.
        state_digest: Digest of the state after the step, None if it is not kept.
        norms: Norms of the task vectors of all steps up to this one, to find those far off; none to look for none.
    """
    locked = stream.lock.models[stats.step - 1]
    far_off = far_off_warnings(stats, stream.entries, norms)
    return StepReport(
        step=stats.step,
        name=locked.name,
        reference=str(locked.reference),
        commit=locked.commit,
        **measures(stats, [entry.name for entry in stream.entries], far_off),
        chain_digest=stream.chain[stats.step],
        revokes=stream.entries[stats.step - 1].revoke,
        replaces=replaced_by(stream.entries, stats.step),
        state_digest=state_digest,
    )


def with_written_model(
    report: StepReport, folder: Path, scores: Scores, written: WrittenModel, dtypes: Iterable[torch.dtype]
) -> StepReport:
    """Return the report of a step with its written model added.

    Args:
        report: Report of the step.
        folder: Folder of the merged model.
        scores: Scores of the merged model.
        written: Rounding error and norm of the merged delta.
        dtypes: Dtypes of the merged tensors.
    """
    files = {path.name: file_digest(path) for path in sorted(folder.glob("*.safetensors"))}
    warnings = (*report.warnings, *rounding_warnings(written.rounding, dtypes))
    drift = written.drift if report.drift is None else report.drift
    return replace(report, files=files, scores=scores, rounding=written.rounding, drift=drift, warnings=warnings)
