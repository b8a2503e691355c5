"""Merged models of the stages of a run, in the work folder. Those that are there and whole are not merged again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hubmerge.report.report import RunReport, StageReport
from hubmerge.stream.sources import folder_digest
from hubmerge.stream.stages import StageModel
from hubmerge.stream.stream import Stream
from hubmerge.support.files import remove_folder
from hubmerge.support.progress import Progress
from hubmerge.support.workspace import Workspace, open_workspace, workspace_name

RunStage = Callable[[Stream, Workspace], RunReport]
"""Function that does the missing steps of a stage, and returns its report."""


def merge_stages(stream: Stream, workspace: Workspace, progress: Progress, run_stage: RunStage) -> Stream:
    """Return a stream with the merged models of its stages, which are merged unless they are there.

    Args:
        stream: The stream.
        workspace: Its work folder.
        progress: Receiver of notes.
        run_stage: Function that runs a stage.

    Raises:
        HubmergeError: A stage cannot be merged, or the work folder cannot be used.
    """
    if not stream.stages:
        return stream
    stream = replace(stream, stage_models={})
    kept = set()
    for stage in stream.stages:
        name = workspace_name(stage.digest, stage.name)
        kept.add(name)
        with open_workspace(workspace.stages, name) as inner:
            inner_stream = stream.of_stage(stage)
            report = run_stage(inner_stream, inner)
            inner.remove_states(keep=set())
            folder = inner.step_folder(inner_stream.length).absolute()  # a reference reads a relative path as a repo
        model = StageModel(folder, folder_digest(folder), stage_report(inner_stream, report))
        progress.note(f"stage {stage.name}: merged model in {folder}")
        stream = replace(stream, stage_models={**stream.stage_models, stage.name: model})
    for folder in workspace.stages.iterdir() if workspace.stages.is_dir() else ():
        if folder.is_dir() and folder.name not in kept:
            remove_folder(folder)
    return stream


def stage_report(stream: Stream, report: RunReport) -> StageReport:
    """Return what the report of a run says about a stage.

    Args:
        stream: The stream of the stage.
        report: The report after its last step.
    """
    return StageReport(
        name=str(stream.loaded.stage),
        merge_method=report.merge_method,
        digest=stream.chain[-1],
        base_model=report.base_model,
        models=report.models,
        parameters=dict(report.parameters),
        files=dict(report.steps[-1].files),
        tokenizer=report.tokenizer,
    )


def stage_reports(stream: Stream) -> tuple[StageReport, ...]:
    """Return the reports of the merged stages of a stream, in the order of their merges."""
    models = [stream.stage_models[stage.name] for stage in stream.stages if stage.name in stream.stage_models]
    return tuple(model.report for model in models if model.report is not None)
