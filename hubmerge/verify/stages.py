"""Stages of a published step: their digests in lock and report, and their merged models made again."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

from hubmerge.errors import HubmergeError, MachineError, RunInterruptedError
from hubmerge.report.inputs import tokenizer_input
from hubmerge.report.report import RunReport, StageReport
from hubmerge.run.run import Run
from hubmerge.run.stage_models import merge_stages, stage_reports
from hubmerge.stream.open_source import resolve_adapter
from hubmerge.stream.sources import Source
from hubmerge.stream.stream import Stream
from hubmerge.support.names import LOCK_FILE
from hubmerge.support.progress import Progress
from hubmerge.support.text import counted
from hubmerge.support.workspace import Workspace
from hubmerge.verify.finding import Finding
from hubmerge.verify.published import Published
from hubmerge.verify.sources import fetch_checked
from merge_recipes import LockedStage


def check_stages(published: Published, stream: Stream) -> Generator[Finding, None, bool]:
    """Check the stages in lock and report against each other and the recipe; return True if a digest differs."""
    broken = False
    locked = {stage.name: stage for stage in stream.lock.stages}
    if [stage.name for stage in stream.stages] != [*locked]:
        yield Finding("lock", "differs", f"{LOCK_FILE} does not list the stages of the recipe")
        return True
    commits = {f"stage:{stage.name}": stage.digest for stage in stream.stages}
    for stage in stream.stages:
        if locked[stage.name].digest != stage.digest:
            yield Finding("chain", "differs", f"the digest of stage {stage.name} does not follow from recipe and lock")
            broken = True
    inner = [model for stage in stream.stages for model in (stage.lock.base_model, *stage.lock.models)]
    for model in (stream.lock.base_model, *stream.lock.models, *inner):
        name = model.reference.path
        if model.reference.stage is not None and commits.get(name) != model.commit:
            yield Finding("chain", "differs", f"the commit of {name} in {LOCK_FILE} is not the digest of the stage")
            broken = True
    if [*map(_recorded, published.report.stages)] != [_locked(one) for one in stream.lock.stages]:
        yield Finding("lock", "differs", f"{LOCK_FILE} does not list the models of the stages in the report")
    return broken


def _recorded(stage: StageReport) -> list[tuple[str, str]]:
    base = (stage.base_model.reference, stage.base_model.commit)
    models = (*stage.models, *tokenizer_input(stage.tokenizer))
    return [(stage.name, stage.digest), base, *((one.reference, one.commit) for one in models)]


def _locked(stage: LockedStage) -> list[tuple[str, str]]:
    tokenizer = () if stage.tokenizer is None else (stage.tokenizer,)
    models = [(str(one.reference), one.commit) for one in (stage.base_model, *stage.models, *tokenizer)]
    return [(stage.name, stage.digest), *models]


def recompute_stages(
    published: Published, stream: Stream, work: Path, progress: Progress
) -> Generator[Finding, None, Stream | None]:
    """Merge the stages again, and compare the weight files; None if a stage cannot be merged.

    Args:
        published: the published step.
        stream: its stream.
        work: a folder for the merged models.
        progress: the receiver of notes and stages.
    """
    if not stream.stages:
        return stream

    def run_stage(stage: Stream, workspace: Workspace) -> RunReport:
        for source in _sources(stage):
            fetch_checked(source, progress)
        run = Run(stage, workspace, progress)
        for _ in run.steps():
            pass
        return run.report

    try:
        made = merge_stages(stream, Workspace(work), progress, run_stage)
    except (MachineError, RunInterruptedError):
        raise
    except HubmergeError as error:
        yield Finding("recomputation", "unknown", f"the stages cannot be recomputed: {error.message}")
        return None
    files = {stage.name: stage.files for stage in published.report.stages}
    other = [stage.name for stage in stage_reports(made) if stage.files != files.get(stage.name)]
    if other:
        detail = (
            f"the weights of stage {other[0]} differ from the digests in the report: another machine rounds otherwise"
        )
        yield Finding("recomputation", "unknown", detail)
    else:
        number = counted(len(stream.stages), "stage has", "stages have")
        yield Finding("recomputation", "same", f"recomputed from their models: {number} the weights in the report")
    return made


def _sources(stage: Stream) -> Iterator[Source]:
    yield stage.base
    for entry in range(1, len(stage.entries) + 1):
        yield resolve_adapter(stage.source(entry))
