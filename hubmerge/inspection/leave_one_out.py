"""The merge without each of its entries, scored: what an entry gives to its own task and to those of the others."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from hubmerge.errors import HubError, UsageError
from hubmerge.executor import InMemoryModel, ReadOut, merge_steps
from hubmerge.executor.state import MergeState
from hubmerge.inspection.entry_scores import EntryScore, LeaveOneOut, with_flags
from hubmerge.methods import method_named
from hubmerge.plan.plan_run import plan_steps
from hubmerge.plan.settings import input_dtype
from hubmerge.report.report import StepReport
from hubmerge.run.choose_reading import read_out_of
from hubmerge.run.run_context import RunContext, count_tensors, tensor_stage
from hubmerge.stream.new_commits import revoked_name
from hubmerge.stream.open_source import open_source
from hubmerge.stream.sources import fetch_folder
from hubmerge.stream.stream import Stream
from hubmerge.study.bench import main_scores
from hubmerge.support.progress import Progress
from hubmerge.verify.finding import Finding
from hubmerge.verify.published import Published
from hubmerge.verify.states import fetch_checked_state
from merge_recipes import StreamEntry, chain_digests, task_entries
from merge_recipes.reading import Reading


def leave_one_out(published: Published, work: Path, progress: Progress) -> LeaveOneOut:
    """Score the merge without each of its entries.

    A method whose steps are sums subtracts the entry from the state: no other checkpoint is read. With another method
    the other entries are merged again, without the entry.

    Args:
        published: the published step, or the folder of one.
        work: an empty folder for states.
        progress: the receiver of notes and stages.

    Raises:
        UsageError: all models were merged at once, or there are fewer than two entries.
        HubError: a checkpoint or the state cannot be read.
    """
    stream = published.checked_stream()
    if stream.is_joint:
        message = f"{stream.recipe.merge_method} merges all models at once: there is no state to take one out of"
        raise UsageError(message, hint="remove an entry from a copy of the recipe and run it with --out DIR")
    out = {entry.revoke for entry in stream.entries}
    live = [entry for entry in stream.entries if entry.revoke is None and entry.name not in out]
    if len(live) < 2:
        raise UsageError(f"{published.repo} merges 1 entry: nothing would be left", hint="merge a second one first")
    return _Merges.open(published, stream, live, work, progress).scored()


class _Merges:
    """The merges without each entry."""

    def __init__(self, published: Published, context: RunContext, live: Sequence[StreamEntry], work: Path) -> None:
        self.published, self.context, self.live, self.work = published, context, live, work
        self.state: MergeState | None = None
        self.reports: dict[str, StepReport] = {step.name: step for step in published.report.steps}

    @classmethod
    def open(
        cls, published: Published, stream: Stream, live: Sequence[StreamEntry], work: Path, progress: Progress
    ) -> _Merges:
        """Fetch the state if the method can subtract from it, and plan the merges."""
        revokes = method_named(stream.recipe.merge_method).revokes
        state = _state(published, work / "state") if revokes else None
        extended = _with_revocations(stream, live) if revokes else stream
        first = 1 if state is None else published.step + 1
        plan = plan_steps(extended, first, progress, recorded=published.report)
        base = fetch_folder(stream.base, auxiliary=True)
        context = RunContext(extended, plan, base, work / "cache", progress, recorded=published.report.tasks)
        merges = cls(published, context, live, work)
        merges.state = state
        return merges

    def scored(self) -> LeaveOneOut:
        """Merge and score everything."""
        context, revokes = self.context, self.context.method.revokes
        if self.state is None:
            self.state = self._merged(range(1, self.published.step + 1), None, "whole")
        whole = self._scores(self.state, "the whole merge", self.published.step)
        found = []
        for number, entry in enumerate(self.live, start=1):
            with self._without(number, entry, revokes=revokes) as (state, step):
                scores = self._scores(state, f"without {entry.name}", step)
            found.append(self._entry(entry, whole, scores))
        examples = {task.name: task.examples or 0 for task in context.scoreboard.task_reports()} if whole else {}
        return with_flags(
            LeaveOneOut(
                place=self.published.repo,
                method=context.stream.recipe.merge_method,
                how="subtracted from the state" if revokes else "merged again without the entry",
                entries=tuple(found),
                whole=whole,
            ),
            examples,
            context.stream.recipe,
        )

    @contextmanager
    def _without(self, number: int, entry: StreamEntry, *, revokes: bool) -> Iterator[tuple[MergeState, int]]:
        """Merge everything except one entry; yield the state and the step whose parameters read it."""
        if revokes:
            steps = range(self.published.step + number, self.published.step + number + 1)
            state = self._merged(steps, self.state, "without")
        else:
            names = [one.name for one in self.context.stream.entries]
            kept = [step for step, name in enumerate(names, start=1) if name != entry.name]
            state, steps = self._merged(kept, None, "without"), range(kept[-1], kept[-1] + 1)
        try:
            yield state, steps[-1]
        finally:
            state.close()
            shutil.rmtree(state.folder, ignore_errors=True)

    def _merged(self, steps: Sequence[int], state: MergeState | None, name: str) -> MergeState:
        """Merge the checkpoints of steps, one after another, into a state."""
        context = self.context
        for index, step in enumerate(steps):
            folder = self.work / name / str(index % 2)
            source = context.plan.sources[step].source
            entry = context.stream.entries[step - 1]
            title = f"{'take out' if entry.revoke else 'merge'} {entry.revoke or entry.name}"
            total = len(context.plan.merge.merged)
            with tensor_stage(context.progress, title, total) as advance, open_source(source) as model:
                step_input = context.step_input(step, context.plan.alignments[step].apply(model))
                executor = context.executor(count_tensors(advance))
                merged, _ = merge_steps(context.merge, [step_input], state, folder, sketches=False, context=executor)
            state = merged
        if state is None:
            raise ValueError("no step to merge")
        return state

    def _scores(self, state: MergeState, label: str, step: int) -> dict[str, float]:
        """Return the main score of every task for the merged model of a state; none without tasks."""
        context = self.context
        if context.stream.recipe.evaluate is None:
            return {}
        board = context.scoreboard
        read_out = self._read_out(step)
        model = InMemoryModel(
            context.base,
            state,
            context.plan.merge,
            label=label,
            input_dtype=input_dtype(context.stream.recipe),
            read_out=read_out,
        )
        return main_scores(board.tasks, board.score_on(label, board.tasks, model))

    def _read_out(self, step: int) -> ReadOut | None:
        """Return the read-out that was chosen for the published step, or that of the recipe."""
        read, context = self.published.report.steps[-1].read, self.context
        choice = None if read is None else read.choice
        if choice is not None:
            return read_out_of(context, Reading(method=choice.method, parameters=choice.parameters))
        return context.merge.read_out(context.step_input(step, context.base))

    def _entry(self, entry: StreamEntry, whole: Mapping[str, float], without: Mapping[str, float]) -> EntryScore:
        report = self.reports[entry.name]
        owners = task_entries(self.context.stream.recipe)
        changes = {task: score - without[task] for task, score in whole.items() if task in without}
        own = [change for task, change in changes.items() if owners.get(task) == entry.name]
        others = [change for task, change in changes.items() if owners.get(task) != entry.name]
        cosines = self._cosines(entry.name)
        return EntryScore(
            step=report.step,
            name=entry.name,
            reference=report.reference,
            commit=report.commit,
            task_vector_norm=report.task_vector_norm,
            mean_cosine=fmean(cosines) if cosines else None,
            own=fmean(own) if own else None,
            others=fmean(others) if others else None,
            changes=changes,
        )

    def _cosines(self, name: str) -> list[float]:
        """Return the cosines between the task vector of an entry and those of the other entries, as far as known."""
        live = {entry.name for entry in self.live}
        found = []
        for step in self.published.report.steps:
            for other in step.similarities:
                pair = {step.name, other.name}
                if name in pair and len(pair & live) == 2 and other.cosine is not None:
                    found.append(other.cosine)
        return found


def _state(published: Published, folder: Path) -> MergeState | None:
    found = fetch_checked_state(published, published.step, folder)
    if isinstance(found, Finding):
        raise HubError(f"{published.repo}: {found.detail}", hint=f"run `hubmerge verify {published.repo}`")
    return found


def _with_revocations(stream: Stream, live: Sequence[StreamEntry]) -> Stream:
    """Return a stream with a step for each entry that takes it out, of which each is merged alone."""
    models = {model.name: model for model in stream.lock.models}
    taken = set(models)
    added: list[StreamEntry] = []
    for entry in live:
        name = revoked_name(entry.name)
        while name in taken:
            name += "-"
        taken.add(name)
        added.append(entry.model_copy(update={"name": name, "revoke": entry.name, "parameters": {}}))
    recipe = stream.recipe.with_stream((*stream.entries, *added))
    locked = tuple(models[one.revoke or ""].model_copy(update={"name": one.name}) for one in added)
    lock = stream.lock.model_copy(update={"models": (*stream.lock.models, *locked)})
    return Stream(replace(stream.loaded, recipe=recipe), lock, chain_digests(recipe, lock), None)
