"""A published state read by another method than the one that merged it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hubmerge.checkpoints import Checkpoint, Origin, TensorInfo
from hubmerge.errors import UsageError
from hubmerge.executor.state import State
from hubmerge.methods import method_named
from hubmerge.methods.readers import reading_problem, saved_name
from hubmerge.plan.plan_run import plan_steps
from hubmerge.run.choose_reading import choose_reading
from hubmerge.run.finish_stage import FinishStage
from hubmerge.run.run_context import RunContext
from hubmerge.stream.open_source import open_for_planning
from hubmerge.stream.sources import fetch_folder
from hubmerge.stream.stream import Stream
from hubmerge.support.files import partial_path, remove_folder, replace_folder
from hubmerge.support.names import step_tag
from hubmerge.support.progress import Progress, counting
from hubmerge.support.stages import BYTES
from hubmerge.verify.published import Published
from hubmerge.verify.states import require_state
from merge_recipes.reading import Read, Reading


def read_published_state(
    published: Published,
    read: Reading | Read,
    out: Path,
    work: Path,
    progress: Progress,
) -> None:
    """Write the merged model that a method reads out of a published state; no checkpoint is read.

    Args:
        published: the published step.
        read: the method with its parameters, checked; or several of them, of which the best one on a task is taken.
        out: the folder to write. It appears complete or not at all.
        work: an empty folder.
        progress: the receiver of stages.

    Raises:
        UsageError: the method cannot read the state; nothing was downloaded.
        HubError: the step has no state, or it is damaged.
    """
    stream = _stream(published, read)
    if isinstance(read, Reading):
        _check_method(published, read)
    with progress.stage(f"download the state after step {published.step}", unit=BYTES) as advance, counting(advance):
        state = require_state(published, work / "state")
    if isinstance(read, Reading) and saved_name(method_named(read.method)) != state.manifest.method:
        raise _unreadable(published, f"its state is one of {state.manifest.method}, not of {read.method}", None)
    step = published.step
    opened = {step: state_as_checkpoint(state, open_for_planning(stream.base))}
    plan = plan_steps(stream, step, progress, recorded=published.report, opened=opened)
    base = fetch_folder(stream.base, auxiliary=True)
    context = RunContext(stream, plan, base, work / "cache", progress)
    partial = partial_path(out)
    remove_folder(partial)
    partial.mkdir(parents=True)
    try:
        FinishStage(context).write(step, state, partial, choose_reading(context, step, state, {}))
        replace_folder(partial, out)
    finally:
        remove_folder(partial)


def _stream(published: Published, read: Reading | Read) -> Stream:
    """Return the stream of a published step with another method, or with a choice between several."""
    stream = published.checked_stream()
    recipe = stream.recipe
    if isinstance(read, Reading):
        entries = tuple(entry.model_copy(update={"parameters": {}}) for entry in recipe.entries)
        changes: dict[str, Any] = {"merge_method": read.method, "parameters": dict(read.parameters), "models": entries}
        changes |= {"evaluate": None, "read": None}
    else:
        changes = {"read": read}
    return replace(stream, loaded=replace(stream.loaded, recipe=recipe.model_copy(update=changes)))


def _check_method(published: Published, read: Reading) -> None:
    """Check that a method reads the states of the one that merged a stream, with parameters that do not change them."""
    recipe = published.checked_stream().recipe
    problem = reading_problem(recipe.merge_method, recipe.parameters, read.method, read.parameters)
    if problem is not None:
        message, hint, key = problem
        if key is not None:
            hint = f"leave {key} out: a published state has that of its stream"
        raise _unreadable(published, message, hint)


def _unreadable(published: Published, message: str, hint: str | None) -> UsageError:
    return UsageError(f"{published.repo} at {step_tag(published.step)}: {message}", hint=hint)


def state_as_checkpoint(state: State, base: Checkpoint, config: Mapping[str, Any] | None = None) -> Checkpoint:
    """Return a checkpoint with the merged tensors of a state, for planning; by default with the config of the base."""
    infos = {
        name: TensorInfo(name, shape, base.tensors[name].dtype, "state", 0, 0)
        for name, shape in state.shapes().items()
        if name in base.tensors
    }
    return Checkpoint(Origin(state.label), infos, base.config if config is None else config, {})
