"""Inputs shared by the stages of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hubmerge.checkpoints import Checkpoint, check_ties, with_copies
from hubmerge.checkpoints.matching.alignment import AlignedCheckpoint
from hubmerge.checkpoints.vocabulary.resized import VocabularyModels
from hubmerge.executor import ExecutorContext, Merge, StepInput, pick_device
from hubmerge.executor.parallel.processes import SINGLE_PROCESS, Processes
from hubmerge.methods import Method, method_named
from hubmerge.plan.licenses import NO_LICENSES, PlannedLicenses
from hubmerge.plan.run_plan import RunPlan
from hubmerge.plan.settings import input_dtype, state_dtype
from hubmerge.report.report import TaskReport
from hubmerge.stream.open_source import open_base
from hubmerge.stream.stream import Stream
from hubmerge.support.progress import Advance, Progress, counting
from merge_recipes import TensorParameters

if TYPE_CHECKING:
    from hubmerge.run.scoreboard import Scoreboard


@dataclass(frozen=True)
class RunContext:
    """Stream, plan, base model and processes of a run.

    Attributes:
        stream: The stream.
        plan: The plan of the missing steps.
        base_folder: Local folder of the base model, with tokenizer and processor.
        cache: Folder for prepared evaluation data.
        progress: Receiver of stages and notes.
        card: The card in the target repo if people may have written in it, None otherwise.
        processes: Processes that share the work on tensors. All other work is done in the first one.
        licenses: Licenses of the inputs and of the merged model.
        writes_notice: False if the target repo has a file NOTICE of other people.
        recorded: Tasks of the steps that are published or on disk, which draw their examples as before.
        others: Files of other people in the target repo, with their digests.
        fresh_datasets: True to prepare data sets in `cache`, without what earlier runs prepared.
        older_steps: Last step that an earlier form of reports has, see `RunReport.older_steps`.
        history: Folder for the whole reports of the steps, None to write none.
    """

    stream: Stream
    plan: RunPlan
    base_folder: Path
    cache: Path
    progress: Progress
    processes: Processes = SINGLE_PROCESS
    fresh_datasets: bool = False
    card: str | None = None
    licenses: PlannedLicenses = NO_LICENSES
    writes_notice: bool = True
    recorded: tuple[TaskReport, ...] = ()
    others: Mapping[str, str] = field(default_factory=dict)
    older_steps: int = 0
    history: Path | None = None

    @cached_property
    def base(self) -> Checkpoint:
        """The base model, with its tied tensors checked; as it is if layers are stacked."""
        opened, copies = open_base(self.stream.base, self.base_folder), self.plan.merge.copies
        resized = self._resized(0, opened)
        if self.plan.assembly is not None:
            return resized
        check_ties(with_copies(opened, copies), self.plan.merge)
        return with_copies(resized, copies)

    def aligned(self, entry: int, checkpoint: Checkpoint) -> AlignedCheckpoint:
        """Return the checkpoint of an entry under the base model's names, with the rows of the merged model."""
        return self.plan.alignments[entry].apply(self.own_rows(entry, checkpoint))

    def own_rows(self, entry: int, checkpoint: Checkpoint) -> Checkpoint:
        """Return the checkpoint of an entry with the rows of the merged model, under its own names."""
        vocabulary = self.plan.vocabulary
        return checkpoint if vocabulary is None else self._resized(vocabulary.numbers[entry], checkpoint)

    @cached_property
    def _vocabulary_models(self) -> VocabularyModels | None:
        """The models whose rows are read in the vocabulary of the merged model, None if no vocabulary changes."""
        return None if self.plan.vocabulary is None else VocabularyModels(self.plan.vocabulary.resizing)

    def _resized(self, model: int, checkpoint: Checkpoint) -> Checkpoint:
        models = self._vocabulary_models
        if models is None:
            return checkpoint
        if model > 0 or 0 not in models.bound:
            models.bind(model, checkpoint)
        return models.resized(model, checkpoint)

    @cached_property
    def scoreboard(self) -> Scoreboard:
        """The tasks of the recipe."""
        from hubmerge.run.scoreboard import Scoreboard  # its libraries take seconds to import

        rows = self.cache / "datasets" if self.fresh_datasets else None
        return Scoreboard(
            self.stream,
            self.base_folder,
            self.cache,
            str(pick_device()),
            self.progress,
            rows=rows,
            recorded=self.recorded,
        )

    @property
    def method(self) -> Method:
        """The merge method of the recipe."""
        return method_named(self.stream.recipe.merge_method)

    @property
    def names(self) -> list[str]:
        """The names of the entries in merge order."""
        return [entry.name for entry in self.stream.entries]

    @property
    def merge(self) -> Merge:
        """Base model, method and plan of the merge."""
        return Merge(self.base, self.method, self.plan.merge, state_dtype(self.stream.recipe))

    def executor(self, on_tensor: Callable[[object], None]) -> ExecutorContext:
        """Return the context of work on tensors; `on_tensor` is called with each tensor that is done."""
        dtype = input_dtype(self.stream.recipe)
        return ExecutorContext(dtype, pick_device(), on_tensor=on_tensor, processes=self.processes)

    def step_input(self, step: int, checkpoint: Checkpoint) -> StepInput:
        """Return a checkpoint with the parameters of a step."""
        entry, recipe = self.stream.entries[step - 1], self.stream.recipe
        merged = entry if entry.revoke is None else recipe.revoked_by(entry)
        parameters = TensorParameters(self.method.Parameters, recipe, merged, self.plan.merge.positions)
        return StepInput(checkpoint, parameters, 1 if entry.revoke is None else -1)

    def title(self, steps: range, action: str) -> str:
        """Return the title of a stage: "step 2: merge NAME" or "steps 1-3: merge 3 checkpoints"."""
        if self.stream.is_joint:
            return f"step {steps[0]}: {action} {len(self.stream.entries_of(steps[0]))} models"
        if len(steps) == 1:
            entry = self.stream.entries[steps[0] - 1]
            if entry.revoke is not None and action == "merge":
                return f"step {steps[0]}: take out {entry.revoke}"
            return f"step {steps[0]}: {action} {entry.name}"
        return f"steps {steps[0]}-{steps[-1]}: {action} {len(steps)} checkpoints"


def count_tensors(advance: Advance) -> Callable[[object], None]:
    """Return a callback that advances a stage by one per tensor."""
    return lambda _: advance(1)


@contextmanager
def tensor_stage(progress: Progress, title: str, total: int) -> Iterator[Advance]:
    """Open a stage of work on tensors, which shows the tensor that is worked on.

    Args:
        progress: the receiver.
        title: the work, in words.
        total: the number of tensors.
    """
    with progress.stage(title, total, "tensors") as advance, counting(advance):
        yield advance
