"""Third stage of a run: write, score and assemble the merged model after the last step of a batch."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from hubmerge.checkpoints import open_checkpoint
from hubmerge.executor import ReadOut, WrittenModel, write_merged
from hubmerge.executor.parallel.tasks import run_on_all
from hubmerge.executor.state import State
from hubmerge.plan.settings import max_shard_bytes
from hubmerge.report.reading import ReadReport
from hubmerge.report.report import RunReport, Scores
from hubmerge.run import model_folder
from hubmerge.run.choose_reading import ChosenReading, choose_reading, overlap_warnings
from hubmerge.run.heads import Heads
from hubmerge.run.joint_step import record_joint_step, write_joint_step
from hubmerge.run.measures import by_name_warnings, part_warnings, rounding_warnings, untied_warnings
from hubmerge.run.metadata_files import write_metadata_files
from hubmerge.run.run_context import RunContext, count_tensors, tensor_stage
from hubmerge.run.step_batch import StepBatch
from hubmerge.run.step_report import record_licenses, record_steps, with_written_model
from hubmerge.stream.step_history import write_history
from hubmerge.support import interrupts
from hubmerge.support.files import partial_path, replace_folder


@dataclass(frozen=True)
class FinishStage:
    """Writing and scoring of merged models.

    Attributes:
        context: The run.
        prepares_all: True to prepare all tasks of the recipe before the first score, so that a mistake in the rows of a
            later task is found before anything is published.
        not_alone: Tasks whose checkpoints are not scored alone.
        readings: Published choices of the read-out, by step, which are kept.
    """

    context: RunContext
    prepares_all: bool = False
    not_alone: frozenset[str] = frozenset()
    readings: Mapping[int, ReadReport] = field(default_factory=dict)

    def finish(self, batch: StepBatch, so_far: RunReport, folder: Path) -> StepBatch:
        """Record the steps of a merged batch, and write and score the model after the last one if it is needed.

        Args:
            batch: Batch from the merge stage.
            so_far: Report up to the step before the batch.
            folder: Folder of the merged model. It appears complete or not at all.

        Raises:
            CheckpointError: A value does not fit into its dtype.
            EvaluationError: A task does not fit the dataset or the model.
            MachineError: The folder cannot be written.
        """
        report = self._record(batch, so_far)
        if self.context.stream.needs_model(batch.last):
            report = self._finish_model(batch, report, folder)
        if self.context.history is not None:
            write_history(self.context.history, report, batch.steps)
        return replace(batch, report=report)

    def finish_recorded(self, batch: StepBatch, report: RunReport, folder: Path) -> RunReport:
        """Write and score the model after the last step of a report, without a checkpoint.

        Args:
            batch: The last step alone, with its state.
            report: Report up to this step.
            folder: Folder of the merged model. It appears complete or not at all.
        """
        return self._finish_model(batch, report, folder)

    def _record(self, batch: StepBatch, so_far: RunReport) -> RunReport:
        """Return the report with the steps of a batch, without their models."""
        plan, heads = self.context.plan.merge, Heads(self.context)
        notes = [*by_name_warnings(plan), *untied_warnings(plan), *part_warnings(plan), *overlap_warnings(self.context)]
        others = self.context.plan.warnings_by_entry
        if self.context.stream.is_joint:
            notes += [
                note for entry in (0, *self.context.stream.entries_of(batch.last)) for note in others.get(entry, ())
            ]
            return record_joint_step(self.context, batch.last, so_far, notes=notes)
        notes += others.get(0, ())
        kept = {step: heads.keep(step, one) for step, one in zip(batch.steps, batch.checkpoints, strict=True)}
        state = batch.merged_state
        report = record_steps(
            self.context.stream, batch.steps, state, so_far, notes=notes, heads=kept, own_notes=others
        )
        return record_licenses(report, batch.steps, self.context.licenses)

    def score_model(self, batch: StepBatch, folder: Path) -> Scores:
        """Write the model after the last step of a merged batch into a new folder, score it, and remove the folder."""
        folder.mkdir(parents=True)
        try:
            chosen = choose_reading(self.context, batch.last, batch.merged_state, self.readings)
            self.write(batch.last, batch.merged_state, folder, chosen)
            with open_checkpoint(folder, f"the merged model of step {batch.last}") as merged:
                return self.context.scoreboard.score(batch.last, merged)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _finish_model(self, batch: StepBatch, report: RunReport, folder: Path) -> RunReport:
        context, step = self.context, batch.last
        partial = partial_path(folder)
        for outdated in (partial, folder):
            shutil.rmtree(outdated, ignore_errors=True)
        partial.mkdir(parents=True)
        chosen: ChosenReading | None = None
        if context.stream.is_joint:
            written = write_joint_step(context, step, batch.checkpoints, partial)
            self._write_other_files(partial)
        else:
            if self.prepares_all and context.stream.recipe.evaluate is not None:
                context.scoreboard.prepare_all()
            chosen = choose_reading(context, step, batch.merged_state, self.readings)
            written = self.write(step, batch.merged_state, partial, chosen)
        interrupts.check()
        report, scores = self._score(batch, report, partial)
        interrupts.check()
        dtypes = {tensor.out_dtype for tensor in context.plan.written.merged}
        finished = with_written_model(report.steps[-1], partial, scores, written, dtypes)
        if chosen is not None:
            finished = replace(finished, read=chosen.report, drift=written.drift)
        report = report.with_step(finished).until(step)
        Heads(context).write(report, partial)
        report = write_metadata_files(partial, report, context)
        replace_folder(partial, folder)
        return report

    def write(self, step: int, state: State, folder: Path, chosen: ChosenReading | None = None) -> WrittenModel:
        """Write weights, config and the other files of the base model after a step, and check the weights.

        Args:
            step: The step.
            state: The state after it.
            folder: The folder.
            chosen: The read-out that was chosen; by default that of the recipe's method.
        """
        context, recipe = self.context, self.context.stream.recipe
        plan = context.plan.written
        with tensor_stage(context.progress, f"step {step}: write the merged model", len(plan.tensors)) as advance:
            written = run_on_all(
                context.executor(count_tensors(advance)),
                write_merged,
                context.base,
                state,
                plan,
                folder,
                read_out=self._read_out(step) if chosen is None else chosen.read_out,
                max_shard_bytes=max_shard_bytes(recipe),
                older_shards=context.plan.older_shards,
            )
        for warning in rounding_warnings(written.rounding, {tensor.out_dtype for tensor in plan.merged}):
            context.progress.note(f"warning: step {step}: {warning}")
        self._write_other_files(folder)
        return written

    def _read_out(self, step: int) -> ReadOut | None:
        return self.context.merge.read_out(self.context.step_input(step, self.context.base))

    def _write_other_files(self, folder: Path) -> None:
        """Write the files beside the weights, and check the weights."""
        context = self.context
        model_folder.copy_auxiliary_files(context.base_folder, folder, quantized=context.plan.quantized)
        model_folder.change_files(context.plan.tokenizer_files, folder)
        if context.base.names.library == "transformers":
            model_folder.write_config(context.plan.config, folder)
        else:
            names = context.base.names
            model_folder.write_library_config(context.plan.config, folder, context.base_folder, names)
        model_folder.check_written(folder, context.plan.written.specs)

    def _score(self, batch: StepBatch, report: RunReport, folder: Path) -> tuple[RunReport, Scores]:
        """Return the report with the scores of base model and checkpoint, and the scores of the merged model."""
        if self.context.stream.recipe.evaluate is None:
            return report, {}
        step, board = batch.last, self.context.scoreboard
        if self.prepares_all:
            board.prepare_all()
        with open_checkpoint(folder, f"the merged model of step {step}") as merged:
            stacked = self.context.plan.assembly is not None
            scorer = board.of_model(folder, merged, self.context.stream.chain[step]) if stacked else board
            scores = scorer.score(step, merged)
        base_scores = {**report.base_scores, **board.score_base(step, report.base_scores)}
        own_scores = {**report.own_scores, **self._own_scores(batch, report.own_scores)}
        own_scores = {name: values for name, values in own_scores.items() if name not in self.not_alone}
        report = replace(report, base_scores=base_scores, own_scores=own_scores, tasks=board.task_reports())
        return report, scores

    def _own_scores(self, batch: StepBatch, known: Scores) -> Scores:
        """Return the scores of the checkpoint of a step alone, or of each checkpoint of a joint step."""
        stream, step, board = self.context.stream, batch.last, self.context.scoreboard
        if not batch.checkpoints:
            return {}
        if not stream.is_joint:
            return board.score_own(step, batch.checkpoints[-1])
        if self.context.plan.assembly is not None:
            return {}  # models of another depth than the base model, or of which few layers are fetched
        found: Scores = {}
        for entry, checkpoint in zip(stream.entries_of(step), batch.checkpoints, strict=True):
            found |= board.score_own(step, checkpoint, entry, known=known)
        return found
