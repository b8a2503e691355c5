"""Recomputation of a published step from its sources.

All steps are merged again, one after another, and each state is compared with the digest in the report. On the machine
that merged them, or one of its kind, the digests are equal, so that the chain of steps is proven from the sources.
Another machine rounds differently. The state is then compared with the published one by distance, and the next step
starts from the published one: OPCM multiplies a rounding difference by about five at every step.

States of a combined stream were added in another order, so that their digests differ on every machine. Their rounding
differences do not grow, so a later state proves one that is no longer published.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from hubmerge.checkpoints import Checkpoint
from hubmerge.errors import HubmergeError, MachineError, RunInterruptedError
from hubmerge.executor.state import MergeState
from hubmerge.plan.licenses import PlannedLicenses
from hubmerge.plan.run_plan import RunPlan
from hubmerge.report.form import REPORT_VERSION
from hubmerge.report.reading import ReadReport
from hubmerge.report.report import RunReport, Scores
from hubmerge.run.finish_stage import FinishStage
from hubmerge.run.joint_step import joint_merge
from hubmerge.run.merge_stage import MergeStage
from hubmerge.run.run_context import RunContext
from hubmerge.run.step_batch import StepBatch
from hubmerge.run.step_report import record_licenses, record_steps
from hubmerge.stream.licenses import read_licenses
from hubmerge.stream.open_source import open_source
from hubmerge.stream.sources import fetch_folder
from hubmerge.stream.stream import Stream
from hubmerge.support.files import remove_folder
from hubmerge.support.names import NOTICE_FILE
from hubmerge.support.progress import Progress
from hubmerge.support.text import counted
from hubmerge.verify.finding import Finding
from hubmerge.verify.from_parts import FetchedParts
from hubmerge.verify.history import step_tags, untagged_scores
from hubmerge.verify.kept import kept_files
from hubmerge.verify.planning import plan_or_parts
from hubmerge.verify.published import Published
from hubmerge.verify.reports import compare_scores, compare_step_statistics
from hubmerge.verify.sources import check_datasets, fetch_checked
from hubmerge.verify.stages import recompute_stages
from hubmerge.verify.states import Comparison, compare_with_published, fetch_checked_state


@dataclass(frozen=True)
class Recomputed:
    """A recomputed step.

    Attributes:
        folder: the folder of the step: weights, auxiliary files and metadata.
        report: the report after the step.
        base: the base model.
    """

    folder: Path
    report: RunReport
    base: Checkpoint


@dataclass
class Chain:
    """The steps that are merged again, one after another.

    Attributes:
        published: the published step.
        context: the stream and its plan.
        work: a folder for states.
        previous: the state after the step before, None before step 1 or if that step could not be recomputed.
        exact: the number of states that have the digest in the report.
        proven: whether the previous state is known to be the right one up to rounding.
        own_scores: the scores of the checkpoints alone.
    """

    published: Published
    context: RunContext
    work: Path
    previous: MergeState | None = None
    exact: int = 0
    proven: bool = True
    own_scores: Scores = field(default_factory=dict)

    @property
    def begins(self) -> int:
        """First step that the plan has."""
        return self.context.plan.first_step

    def merge(self, step: int) -> Generator[Finding, None, StepBatch | None]:
        """Merge a step and compare its state and its statistics; None if that is not possible."""
        if step > 1 and self.previous is None:
            yield from self._fetch_previous(step)
            if self.previous is None:
                detail = f"step {step} cannot be recomputed: there is no state after step {step - 1} to start from"
                yield Finding("recomputation", "unknown", detail)
                return None
        try:
            batch = self._merge(step)
        except (MachineError, RunInterruptedError):
            raise
        except HubmergeError as error:
            self.previous = None
            yield Finding("recomputation", "unknown", f"step {step} cannot be recomputed: {error.message}")
            return None
        yield from self._compare(step, batch.merged_state)
        return batch

    def start(self, parts: FetchedParts) -> Generator[Finding, None, MergeState]:
        """Begin after the combined step, with the sum of the states of its parts; return the sum."""
        state = parts.add(self.context, self._folder("state", parts.step))
        yield from self._compare(parts.step, state)
        yield parts.finding
        return state

    def _fetch_previous(self, step: int) -> Generator[Finding, None, None]:
        fetched = fetch_checked_state(self.published, step - 1, self._folder("published", step - 1))
        if isinstance(fetched, Finding):
            yield fetched
        else:
            self.previous, self.proven = fetched, True

    def _merge(self, step: int) -> StepBatch:
        source = self.context.plan.sources[step].source
        fetch_checked(source, self.context.progress)
        batch = StepBatch(range(step, step + 1), (open_source(source),))
        return MergeStage(self.context).merge(batch, self.previous, self._folder("state", step))

    def _compare(self, step: int, state: MergeState) -> Generator[Finding, None, None]:
        before, published = self.previous, self.published
        combined = step in published.report.combined_steps
        self.previous = state
        if published.state_digest(step) == state.digest:
            self.exact += 1
            self.proven = True
        elif published.state_digest(step) is not None:
            compared = compare_with_published(published, state, self._folder("published", step), proven=self.proven)
            if not combined or compared.published is not None or compared.finding.verdict == "differs":
                yield compared.finding
                self._continue_from(compared, state)
        elif not combined:
            self.proven = False
        record = record_steps(self.context.stream, range(step, step + 1), state, published.report.until(step - 1))
        yield from compare_step_statistics(published.report.steps[step - 1], record.steps[-1], combined=combined)
        if before is not None:
            before.close()
            remove_folder(before.folder)

    def _continue_from(self, compared: Comparison, state: MergeState) -> None:
        self.proven = compared.finding.verdict == "same"
        if self.proven and compared.published is not None and state.step < self.published.step:
            self.previous = compared.published

    def _folder(self, kind: str, step: int) -> Path:
        return self.work / kind / str(step)


def recompute_step(
    published: Published, stream: Stream, work: Path, progress: Progress, *, from_parts: bool = False
) -> Generator[Finding, None, Recomputed | None]:
    """Compute a published step again, with all steps before it.

    Args:
        published: the published step.
        stream: its stream.
        work: an empty folder.
        progress: the receiver of notes and stages.
        from_parts: True to add the states of the parts of a combined stream, and to merge the steps after them alone.

    Returns:
        The recomputed step, or None if it cannot be recomputed; a finding then says why.
    """
    made = yield from recompute_stages(published, stream, work, progress)
    if made is None:
        return None
    plan, parts = yield from plan_or_parts(published, made, work / "parts", progress, from_parts=from_parts)
    if plan is None:
        return None
    stream = made
    fetch_checked(stream.base, progress)
    check_datasets(stream, progress)
    context = _context(published, stream, plan, work / "cache", progress)
    if stream.is_joint:
        return _recompute_joint(published, context, work)
    chain = Chain(published, context, work)
    if parts is not None:
        state = yield from chain.start(parts)
        if parts.step == published.step:
            return _finish_sum(published, context, state, work)
    yield from _merge_earlier_steps(published, chain)
    return (yield from _finish_chain(published, chain, work))


def _finish_chain(published: Published, chain: Chain, work: Path) -> Generator[Finding, None, Recomputed | None]:
    """Merge the published step, and write and score its model."""
    context = chain.context
    batch = yield from chain.merge(published.step)
    if batch is None:
        return None
    if chain.exact:
        number = counted(chain.exact, "state has the digest", "states have the digests")
        yield Finding("chain", "same", f"recomputed from base model and checkpoints: {number} in the report")
    if context.stream.recipe.fetch == "ranges":
        detail = "the files that the recipe fetches by ranges were read whole and have the digests on the Hub"
        yield Finding("sources", "same", detail)
    # Without the scores of the base model and of the checkpoints alone, so that they are all computed again.
    before = published.report.until(published.step - 1)
    kept = {name: scores for name, scores in before.own_scores.items() if name not in chain.own_scores}
    so_far = replace(before, base_scores={}, own_scores={**kept, **chain.own_scores})
    stage = FinishStage(context, not_alone=_not_alone(published.report), readings=_readings(published.report))
    batch = stage.finish(batch, so_far, work / "step")
    check_datasets(context.stream, context.progress)
    return Recomputed(work / "step", batch.finished_report, context.base)


def _finish_sum(published: Published, context: RunContext, state: MergeState, work: Path) -> Recomputed:
    """Write and score the model of a combined state; what only checkpoints have is taken from the report."""
    report, steps = published.report, range(published.step, published.step + 1)
    so_far = replace(report.until(published.step - 1), base_scores={}, own_scores=report.own_scores)
    made = record_steps(context.stream, steps, state, so_far, heads={published.step: report.steps[-1].head})
    made = record_licenses(made, steps, context.licenses)
    stage = FinishStage(context, readings=_readings(report))
    made = stage.finish_recorded(StepBatch(steps, state=state), made, work / "step")
    check_datasets(context.stream, context.progress)
    return Recomputed(work / "step", made, context.base)


def _readings(report: RunReport) -> dict[int, ReadReport]:
    """Return the published choices of the read-out, by step."""
    return {step.step: step.read for step in report.steps if step.read is not None}


def _not_alone(report: RunReport) -> frozenset[str]:
    """Return the tasks of a combined stream whose checkpoints no part scored alone."""
    tasks = {task.name for task in report.tasks} if report.combined_steps else set()
    return frozenset(tasks - set(report.own_scores))


def _recompute_joint(published: Published, context: RunContext, work: Path) -> Recomputed:
    """Merge all models of a joint step again."""
    stream, step = context.stream, published.step
    sources = [context.plan.sources[entry].source for entry in stream.entries_of(step)]
    for source in sources:
        fetch_checked(source, context.progress)
    batch = StepBatch(range(step, step + 1), tuple(open_source(source) for source in sources))
    # Without the scores of the base model and of the checkpoints alone, so that they are all computed again.
    so_far = replace(published.report.until(step - 1), base_scores={}, own_scores={})
    base = joint_merge(context, step, batch.checkpoints).base
    batch = FinishStage(context).finish(batch, so_far, work / "step")
    batch.close()
    check_datasets(stream, context.progress)
    return Recomputed(work / "step", batch.finished_report, base)


def _merge_earlier_steps(published: Published, chain: Chain) -> Iterator[Finding]:
    """Merge the steps before the published one, and score the models of those without a tag."""
    context = chain.context
    scored = context.stream.recipe.evaluate is not None
    unproven = untagged_scores(published, step_tags(published)) if scored else []
    for step in range(context.plan.first_step, published.step):
        batch = yield from chain.merge(step)
        if batch is not None:
            chain.own_scores |= _own_scores(context, batch)
            if step in unproven:
                stage = FinishStage(context, readings=_readings(published.report))
                found = stage.score_model(batch, chain.work / "scored" / str(step))
                yield from compare_scores(published.report.steps[step - 1], found)
            batch.close()
        elif step in unproven:
            yield Finding("scores", "unknown", f"the scores of step {step} cannot be computed: it cannot be merged")


def _context(published: Published, stream: Stream, plan: RunPlan, cache: Path, progress: Progress) -> RunContext:
    """Return the context of a run that writes the step as it was published."""
    report, base = published.report, fetch_folder(stream.base, auxiliary=True)
    context = RunContext(stream, plan, base, cache, progress, fresh_datasets=True, recorded=report.tasks)
    if report.base_model.licenses:
        context = replace(context, licenses=PlannedLicenses(read_licenses(stream, report)))
    older = report.older_steps if report.version >= REPORT_VERSION else published.step
    return replace(context, older_steps=older, writes_notice=NOTICE_FILE not in kept_files(published))


def _own_scores(context: RunContext, batch: StepBatch) -> Scores:
    """Return the scores of the checkpoint of an earlier step alone."""
    if context.stream.recipe.evaluate is None:
        return {}
    return context.scoreboard.score_own(batch.last, batch.checkpoints[-1])
