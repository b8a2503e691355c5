"""Making one step: the checkpoint absorbed into a state, and the state turned into a finished, checked folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hubmerge import assembly
from hubmerge.checkpoints import Checkpoint, MatrixRule, align, check_ties, open_checkpoint, weight_matrices
from hubmerge.executor import merge_step, pick_device, write_merged
from hubmerge.executor.processes import ALONE, Processes, in_all
from hubmerge.executor.writing import MAX_SHARD_BYTES
from hubmerge.measures import warnings
from hubmerge.methods import method_named
from hubmerge.planning import RunPlan, input_dtype, selection_of
from hubmerge.progress import Advance, Progress
from hubmerge.recording import FIGURES_FILE, step_report
from hubmerge.report import RunReport
from hubmerge.state import MergeState
from hubmerge.stream import Stream
from hubmerge.workspace import write_text
from merge_recipes import TensorParameters

if TYPE_CHECKING:
    from hubmerge.scoring import Scoreboard


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
    processes: Processes = ALONE

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
        from hubmerge.scoring import Scoreboard  # its libraries take seconds to import

        return Scoreboard(self.stream, self.base_folder, self.cache, str(pick_device()), self.progress)

    def prepare(self, checkpoint: Checkpoint) -> None:
        """Fetch what merging will read of a checkpoint that is not here as a whole."""
        aligned = align(self.base, checkpoint, selection=selection_of(self.stream.recipe), ties=self.rule.ties)
        aligned.prepare([tensor.name for tensor in self.plan.merge.merged])

    def merge(self, step: int, checkpoint: Checkpoint, previous: MergeState | None, folder: Path) -> MergeState:
        """Absorb the checkpoint of a step and leave the state, with the figures of the merge, in `folder`."""
        recipe, entry = self.stream.recipe, self.stream.entries[step - 1]
        method = method_named(recipe.merge_method)
        aligned = align(self.base, checkpoint, selection=selection_of(recipe), ties=self.rule.ties)
        check_ties(aligned, self.plan.merge)
        with self.progress.stage(f"step {step}: merge {entry.name}", len(self.plan.merge.merged)) as advance:
            state, figures = in_all(
                self.processes,
                merge_step,
                self.base,
                aligned,
                previous,
                method,
                TensorParameters(method.Parameters, recipe, entry),
                self.plan.merge,
                folder,
                chain=self.stream.chain[step],
                input_dtype=input_dtype(recipe),
                device=pick_device(),
                here={"on_tensor": _count(advance)},
            )
        write_text(state.folder / FIGURES_FILE, figures.to_json())
        for warning in warnings(figures, [entry.name for entry in self.stream.entries]):
            self.progress.note(f"warning: step {step}: {warning}")
        return state

    def finish(
        self, step: int, state: MergeState, checkpoint: Checkpoint, so_far: RunReport, folder: Path
    ) -> RunReport:
        """Write the merged model with everything around it into `folder`, scored; return the report with this step.

        The folder appears whole or not at all. `so_far` is the report after the step before.
        """
        recipe = self.stream.recipe
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with self.progress.stage(f"step {step}: write the merged model", len(self.plan.written.tensors)) as advance:
            written = in_all(
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
        assembly.copy_companions(self.base_folder, partial)
        assembly.write_config(self.plan.config, partial, out_dtype=recipe.out_dtype or recipe.dtype)
        assembly.check_loads(partial)
        report = so_far
        scores = {}
        if recipe.evaluate is not None:
            with open_checkpoint(partial, f"the merged model of step {step}") as merged:
                scores = self.scores.score(step, merged)
            base_scores = {**so_far.base_scores, **self.scores.score_base(step, so_far.base_scores)}
            own_scores = {**so_far.own_scores, **self.scores.score_own(step, checkpoint)}
            report = replace(so_far, base_scores=base_scores, own_scores=own_scores, tasks=self.scores.task_reports())
        done = step_report(self.stream, step, state, scores, partial, written.rounding)
        report = report.with_step(done).until(step)
        assembly.write_papers(partial, report, self.stream, self.base_folder)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
        return report


def _count(advance: Advance) -> Callable[[object], None]:
    """Tell a stage that one more tensor is done."""
    return lambda tensor: advance(1)
