"""Making steps: checkpoints absorbed into a state, and the state turned into a finished, checked folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hubmerge.checkpoints import Checkpoint, MatrixRule, align, check_ties, open_checkpoint, weight_matrices
from hubmerge.executor import StepInput, goes_step_by_step, merge_steps, pick_device, write_merged
from hubmerge.executor.parallel.processes import SINGLE_PROCESS, Processes, run_on_all
from hubmerge.executor.state import MergeState
from hubmerge.executor.write_model import MAX_SHARD_BYTES
from hubmerge.methods import Method, method_named
from hubmerge.plan.budget import STEPS_AT_ONCE
from hubmerge.plan.run_plan import RunPlan, input_dtype, selection_of
from hubmerge.report.report import RunReport
from hubmerge.run import step_folder
from hubmerge.run.measures import rounding_warnings, warnings
from hubmerge.run.step_report import merged_report, read_stats, with_model, write_stats
from hubmerge.stream.stream import Stream
from hubmerge.support.progress import Advance, Progress
from merge_recipes import TensorParameters

if TYPE_CHECKING:
    from hubmerge.run.scoreboard import Scoreboard


@dataclass(frozen=True)
class StepMaker:
    """Makes steps of one stream out of files that are here. It knows neither what is published nor the work folder.

    `base_folder` holds the base model with tokenizer and processor; `cache` keeps what evaluation prepares. `processes`
    share the work on the tensors; everything else is done in this one, the first.
    """

    stream: Stream
    plan: RunPlan
    base_folder: Path
    cache: Path
    progress: Progress
    processes: Processes = SINGLE_PROCESS

    @cached_property
    def base(self) -> Checkpoint:
        """The base model."""
        base = open_checkpoint(self.base_folder, self.stream.base.label)
        check_ties(base, self.plan.merge)
        return base

    @cached_property
    def rule(self) -> MatrixRule:
        """Which tensors are weight matrices."""
        return weight_matrices(self.base.config, self.base.tensors)

    @cached_property
    def scores(self) -> Scoreboard:
        """The recipe's tasks."""
        from hubmerge.run.scoreboard import Scoreboard  # its libraries take seconds to import

        return Scoreboard(self.stream, self.base_folder, self.cache, str(pick_device()), self.progress)

    def prepare(self, checkpoint: Checkpoint) -> None:
        """Fetch what merging will read of a checkpoint that is not here as a whole."""
        aligned = align(self.base, checkpoint, selection=selection_of(self.stream.recipe), ties=self.rule.ties)
        aligned.prepare([tensor.name for tensor in self.plan.merge.merged])

    def stretches(self, begin: int) -> Iterator[range]:
        """The steps from `begin` on, in stretches that are merged at a time: one by one if each one's model is wanted.

        A stretch ends where a state is needed. A step whose checkpoint has yet to be downloaded is one of its own, so
        that the next one is downloaded meanwhile; so is every step where disk is to be spared (`fetch: ranges`), or
        where a method has to see the whole model.
        """
        single = self.stream.recipe.fetch == "ranges" or any(
            goes_step_by_step(self._method, self._incoming(step, self.base), self.plan.merge)
            for step in range(begin, self.stream.length + 1)
        )

        def goes_on(end: int) -> bool:
            """Whether the step after `end` is in the same stretch."""
            missing = (self.plan.sources[step].missing_bytes for step in (end, end + 1))
            return not (single or self.stream.needs_state(end) or any(missing))

        while begin <= self.stream.length:
            end = begin
            while end < min(self.stream.length, begin + STEPS_AT_ONCE - 1) and goes_on(end):
                end += 1
            yield range(begin, end + 1)
            begin = end + 1

    def merge(
        self, stretch: range, checkpoints: Sequence[Checkpoint], previous: MergeState | None, folder: Path
    ) -> MergeState:
        """Absorb the checkpoints of a stretch and leave the state, with the figures of the merge, in `folder`."""
        recipe = self.stream.recipe
        aligned = [align(self.base, one, selection=selection_of(recipe), ties=self.rule.ties) for one in checkpoints]
        for one in aligned:
            check_ties(one, self.plan.merge)
        with self.progress.stage(self.title(stretch, "merge"), len(self.plan.merge.merged)) as advance:
            state, told = run_on_all(
                self.processes,
                merge_steps,
                self.base,
                [self._incoming(step, one) for step, one in zip(stretch, aligned, strict=True)],
                previous,
                self._method,
                self.plan.merge,
                folder,
                chain=self.stream.chain[stretch[-1]],
                input_dtype=input_dtype(recipe),
                device=pick_device(),
                here={"on_tensor": _count(advance)},
            )
        write_stats(told, state)
        for figures in told:
            for warning in warnings(figures, [entry.name for entry in self.stream.entries]):
                self.progress.note(f"warning: step {figures.step}: {warning}")
        return state

    def title(self, stretch: range, what: str) -> str:
        """What the person at the screen reads of something that is done for a stretch."""
        if len(stretch) == 1:
            return f"step {stretch[0]}: {what} {self.stream.entries[stretch[0] - 1].name}"
        return f"steps {stretch[0]}-{stretch[-1]}: {what} {len(stretch)} checkpoints"

    def record(self, stretch: range, state: MergeState, so_far: RunReport) -> RunReport:
        """Return the report with what the merge tells of the steps of a stretch, which ends with `state`.

        `so_far` is the report after the step before.
        """
        figures = read_stats(state.folder)
        report = so_far
        for step in stretch:
            kept = step == state.step and self.stream.needs_state(step)
            done = merged_report(self.stream, figures[step], state.digest if kept else None)
            report = report.with_step(done).until(step)
        return report

    def finish(
        self, step: int, state: MergeState, checkpoint: Checkpoint, so_far: RunReport, folder: Path
    ) -> RunReport:
        """Write the merged model with everything around it into `folder`, scored; return the report with this step.

        The folder appears whole or not at all. `so_far` is the report after the step before.
        """
        so_far = self.record(range(step, step + 1), state, so_far)
        recipe = self.stream.recipe
        partial = folder.with_name(f".{folder.name}.partial")
        for outdated in (partial, folder):
            shutil.rmtree(outdated, ignore_errors=True)
        partial.mkdir(parents=True)
        with self.progress.stage(f"step {step}: write the merged model", len(self.plan.written.tensors)) as advance:
            written = run_on_all(
                self.processes,
                write_merged,
                self.base,
                state,
                self.plan.written,
                partial,
                max_shard_bytes=recipe.publish.max_shard_bytes if recipe.publish is not None else MAX_SHARD_BYTES,
                input_dtype=input_dtype(recipe),
                here={"on_tensor": _count(advance)},
            )
        dtypes = {tensor.out_dtype for tensor in self.plan.written.merged}
        for warning in rounding_warnings(written.rounding, dtypes):
            self.progress.note(f"warning: step {step}: {warning}")
        step_folder.copy_auxiliary_files(self.base_folder, partial)
        step_folder.write_config(self.plan.config, partial, out_dtype=recipe.out_dtype or recipe.dtype)
        step_folder.check_written(partial, self.plan.written.specs)
        report = so_far
        scores = {}
        if recipe.evaluate is not None:
            with open_checkpoint(partial, f"the merged model of step {step}") as merged:
                scores = self.scores.score(step, merged)
            base_scores = {**so_far.base_scores, **self.scores.score_base(step, so_far.base_scores)}
            own_scores = {**so_far.own_scores, **self.scores.score_own(step, checkpoint)}
            report = replace(so_far, base_scores=base_scores, own_scores=own_scores, tasks=self.scores.task_reports())
        report = report.with_step(with_model(report.steps[-1], partial, scores, written.rounding, dtypes)).until(step)
        step_folder.write_metadata_files(partial, report, self.stream, self.base_folder)
        partial.rename(folder)
        return report

    @property
    def _method(self) -> Method:
        return method_named(self.stream.recipe.merge_method)

    def _incoming(self, step: int, checkpoint: Checkpoint) -> StepInput:
        entry = self.stream.entries[step - 1]
        return StepInput(checkpoint, TensorParameters(self._method.Parameters, self.stream.recipe, entry))


def _count(advance: Advance) -> Callable[[object], None]:
    """Tell a stage that one more tensor is done."""
    return lambda tensor: advance(1)
