"""Combination of published streams into one: their states are added, and the sum is read out, scored and published."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hubmerge.combining.lineage import combined_lock, combined_report, last_step
from hubmerge.combining.part import Part
from hubmerge.combining.recipe import Placed
from hubmerge.errors import TargetError
from hubmerge.executor import StepInput, add_states
from hubmerge.executor.state import MergeState
from hubmerge.hub import client
from hubmerge.hub.published import step_file
from hubmerge.plan.licenses import plan_licenses
from hubmerge.plan.plan_run import plan_steps
from hubmerge.plan.preflight import Preflight, check_before_merge, resolve_checked
from hubmerge.plan.signing import checked_signer
from hubmerge.report.report import RunReport
from hubmerge.run.finish_stage import FinishStage
from hubmerge.run.output_folder import OutputFolder, checked_output
from hubmerge.run.publisher import Publisher
from hubmerge.run.run import Run
from hubmerge.run.run_context import RunContext, count_tensors, tensor_stage
from hubmerge.run.step_batch import StepBatch
from hubmerge.run.step_report import merged_report, read_stats, write_stats
from hubmerge.stream.open_source import open_for_planning
from hubmerge.stream.partition import whole_entries
from hubmerge.stream.pinned import PinnedCommits, read_recipe_target
from hubmerge.stream.sources import fetch_folder
from hubmerge.stream.step_history import write_history
from hubmerge.stream.stream import Stream
from hubmerge.stream.work_files import write_work_lock
from hubmerge.support.files import remove_folder, write_text_atomic
from hubmerge.support.hashing import file_digest
from hubmerge.support.names import head_files
from hubmerge.support.progress import Progress, counting
from hubmerge.support.stages import BYTES
from hubmerge.support.text import counted
from hubmerge.support.workspace import Workspace, open_workspace, workspace_name
from hubmerge.verify.read_state import state_as_checkpoint
from hubmerge.verify.states import require_state
from merge_recipes import LoadedRecipe

_PARTS = ".parts"
"""Folder for the states of the parts in the work folder; the dot makes it a leftover if the process is killed."""


@dataclass(frozen=True)
class Combination:
    """A combined stream.

    Attributes:
        report: Report of the stream.
        addresses: Web address of the published step, none if nothing is published.
        added: Number of steps that were added to the target repo or the folder, 0 if all were there.
    """

    report: RunReport
    addresses: tuple[str, ...]
    added: int


@dataclass(frozen=True)
class Combiner:
    """A combination of streams, with its recipe resolved.

    Attributes:
        stream: The combined stream.
        placed: The parts.
        workspace: The work folder of the combined stream.
        progress: Receiver of stages.
        keeps_first: True if the steps of the first part are published in the target repo, and stay.
    """

    stream: Stream
    placed: Sequence[Placed]
    workspace: Workspace
    progress: Progress
    keeps_first: bool

    def check(self, report: RunReport) -> Preflight:
        """Check licenses, permission, target files and tasks, before anything is downloaded."""
        read_licenses = partial(plan_licenses, self.stream, report)
        return check_before_merge(
            self.stream, self.progress, lambda: None, read_licenses, recorded=report, needs_token=True
        )

    def make(self, heads: dict[str, str], report: RunReport, checked: Preflight) -> tuple[StepBatch, RunReport]:
        """Add the states, and write and score the model; return the last step and the report."""
        stream, step = self.stream, self.stream.length
        parts = self.workspace.folder / _PARTS
        try:
            states = [self._fetch(one, parts / str(number)) for number, one in enumerate(self.placed)]
            context = self._context(states[-1], report, checked)
            state = self._add(context, states)
        finally:
            remove_folder(parts)
        stats = read_stats(state.folder)[step]
        measured = merged_report(stream, stats, state.digest if stream.needs_state(step) else None)
        report = report.with_step(last_step(stream, self.placed, heads, measured))
        batch = StepBatch(range(step, step + 1), state=state)
        report = FinishStage(context, prepares_all=True).finish_recorded(
            batch, report, self.workspace.step_folder(step)
        )
        write_history(self.workspace.history, report, range(1, step + 1))
        return batch, report

    def _fetch(self, one: Placed, folder: Path) -> MergeState:
        title = f"fetch the state of {one.part.label}"
        with self.progress.stage(title, unit=BYTES) as advance, counting(advance):
            return require_state(one.part.published, folder)

    def _context(self, state: MergeState, report: RunReport, checked: Preflight) -> RunContext:
        stream, step = self.stream, self.stream.length
        known = state_as_checkpoint(state, open_for_planning(stream.base), self._tower_config())
        recorded = self.placed[0].part.report
        plan = plan_steps(stream, step, self.progress, recorded=recorded, opened={step: known})
        with self.progress.stage("fetch the base model", unit=BYTES) as advance, counting(advance):
            base = fetch_folder(stream.base, auxiliary=True)
        context = RunContext(stream, plan, base, self.workspace.cache, self.progress)
        return replace(
            context,
            card=checked.kept.card,
            writes_notice=checked.kept.writes_notice,
            licenses=checked.licenses,
            others=checked.kept.others,
            recorded=report.tasks,
            history=self.workspace.history,
        )

    def _tower_config(self) -> Mapping[str, Any] | None:
        """Return the config of a published tower, None if whole models are published."""
        publish, files = self.stream.recipe.publish, self.placed[0].part.published.files
        if publish is None or publish.model == "full":
            return None
        content: dict[str, Any] = json.loads(step_file(files, "config.json").read_text(encoding="utf-8"))
        return content

    def _add(self, context: RunContext, states: Sequence[MergeState]) -> MergeState:
        step = self.stream.length
        given: StepInput = context.step_input(step, context.base)
        title = f"add {counted(len(states), 'state')}"
        with tensor_stage(self.progress, title, len(context.plan.merge.merged)) as advance:
            state, stats = add_states(
                context.merge,
                states,
                given,
                self.workspace.state_folder(self.stream.chain[step]),
                chain=self.stream.chain[step],
                context=context.executor(count_tensors(advance)),
            )
        write_stats([stats], state)
        return state


def combine_streams(
    loaded: LoadedRecipe,
    placed: Sequence[Placed],
    work_dir: Path,
    progress: Progress,
    *,
    out: OutputFolder | None = None,
) -> Combination:
    """Combine streams into one.

    Args:
        loaded: The recipe of the combined stream, which has the entries of all parts.
        placed: The parts, in the order of the recipe.
        work_dir: Parent of the work folder.
        progress: Receiver of stages and notes.
        out: Folder for the merged model, None to leave it in the work folder.

    Raises:
        TargetError: The target repo has another stream.
        HubmergeError: A state, the base model, the target repo or `out` cannot be used.
    """
    publish = loaded.recipe.publish
    label = publish.repo if publish is not None else loaded.path.stem
    identity = f"{client.endpoint()} {publish.repo}" if publish is not None else loaded.identity
    with checked_output(out), open_workspace(work_dir, workspace_name(identity, label)) as workspace:
        with progress.stage("resolve commits"):
            stream = _resolved(loaded, placed)
        published = stream.published_report()
        if published is not None and len(published.steps) == stream.length:
            run = Run(stream, workspace, progress, out=out)
            run.write_out()
            return Combination(run.report, tuple(run.addresses()[-1:]), 0)
        if published is not None:
            _check_is_first(published, placed[0].part, label)
        combiner = Combiner(stream, placed, workspace, progress, keeps_first=published is not None)
        return _combine(combiner, out)


def _combine(combiner: Combiner, out: OutputFolder | None) -> Combination:
    stream, workspace, progress = combiner.stream, combiner.workspace, combiner.progress
    publisher = Publisher(stream, workspace, progress)
    publisher.signer = checked_signer(stream.loaded, {"the work folder": workspace.folder})
    heads = _renamed_heads(combiner.placed, workspace.cache)
    report = combined_report(stream, combiner.placed, heads, keeps_first=combiner.keeps_first)
    checked = combiner.check(report)
    for line in (*checked.warning_lines, *checked.licenses.notes):
        progress.note(line)
    publisher.own = checked.kept.own
    write_work_lock(workspace, stream.lock)
    batch, report = combiner.make(heads, report, checked)
    publisher.publish(batch.last, workspace.step_folder(batch.last), batch.state, report)
    write_text_atomic(workspace.report_file, report.to_json())
    workspace.remove_states(keep={stream.chain[batch.last]})
    run = Run(replace(stream, target=read_recipe_target(stream.loaded, writes=True)), workspace, progress, out=out)
    run.write_out()
    before = combiner.placed[0].part.steps if combiner.keeps_first else 0
    return Combination(run.report, tuple(run.addresses()[-1:]), batch.last - before)


def _resolved(loaded: LoadedRecipe, placed: Sequence[Placed]) -> Stream:
    """Resolve the recipe with the commits of the parts; the Hub is asked for data sets alone, if no part has them."""
    lock = combined_lock(loaded, whole_entries(loaded), placed)
    target = read_recipe_target(loaded, writes=True)
    return resolve_checked(loaded, PinnedCommits((lock,), len(lock.models), target, exact=True))


def _check_is_first(published: RunReport, part: Part, repo: str) -> None:
    """Check that the first part is what is published in the target repo.

    Raises:
        TargetError: The target repo has other steps of the stream.
    """
    if part.published.sealed.seal != published.seal:
        raise TargetError(
            f"target repo {repo} has {counted(len(published.steps), 'step')} of this stream already",
            hint=f"name it as the first of the streams, or publish to another repo: hubmerge combine {repo} ...",
            repo=repo,
        )


def _renamed_heads(placed: Sequence[Placed], folder: Path) -> dict[str, str]:
    """Copy the heads of all parts into a folder, under the names of their entries in the combined stream.

    Returns:
        The digest of each description by the name of its entry.
    """
    found = {}
    for one in placed:
        for step in one.part.report.steps:
            if step.head is None:
                continue
            name = one.names[step.name]
            sources = [step_file(one.part.published.files, file) for file in head_files(step.name)]
            targets = [folder / file for file in head_files(name)]
            targets[0].parent.mkdir(parents=True, exist_ok=True)
            targets[0].write_bytes(sources[0].read_bytes())
            facts = {**json.loads(sources[1].read_text(encoding="utf-8")), "entry": name}
            write_text_atomic(targets[1], json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
            found[name] = file_digest(targets[1])
    return found
