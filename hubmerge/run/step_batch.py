"""Batch of steps on its way through the stages of a run."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hubmerge.checkpoints import Checkpoint
from hubmerge.errors import HubmergeError
from hubmerge.executor.state import MergeState
from hubmerge.report.report import RunReport, StepReport


@dataclass(frozen=True)
class StepBatch:
    """Consecutive steps that are merged together. Each stage returns the batch with its own result added.

    Attributes:
        steps: The steps, in order.
        checkpoints: The opened checkpoints, one per step, or all of a joint step, from the fetch stage.
        failure: Error of the checkpoint after `steps`, which could not be fetched, None if all were.
        state: State after the last step, from the merge stage.
        report: Report of the run up to the last step, from the finish stage.
    """

    steps: range
    checkpoints: tuple[Checkpoint, ...] = ()
    failure: HubmergeError | None = None
    state: MergeState | None = None
    report: RunReport | None = None

    @property
    def last(self) -> int:
        """The last step."""
        return self.steps[-1]

    @property
    def merged_state(self) -> MergeState:
        """The state after the last step, once the batch is merged."""
        if self.state is None:
            raise ValueError(f"{self.steps}: not merged yet")
        return self.state

    @property
    def finished_report(self) -> RunReport:
        """The report up to the last step, once the batch is finished."""
        if self.report is None:
            raise ValueError(f"{self.steps}: not finished yet")
        return self.report

    @property
    def step_reports(self) -> tuple[StepReport, ...]:
        """The reports of the steps, once the batch is finished."""
        return self.finished_report.steps[-len(self.steps) :] if self.steps else ()

    def from_step(self, first: int) -> StepBatch:
        """Return the batch without the steps before `first`, whose checkpoints are closed."""
        skipped = min(max(first - self.steps[0], 0), len(self.steps))
        for checkpoint in self.checkpoints[:skipped]:
            checkpoint.close()
        return replace(self, steps=self.steps[skipped:], checkpoints=self.checkpoints[skipped:])

    def single_steps(self) -> list[StepBatch]:
        """Split a fetched batch into batches of one step; the failure stays with the last one."""
        singles = [
            StepBatch(range(step, step + 1), (checkpoint,))
            for step, checkpoint in zip(self.steps, self.checkpoints, strict=True)
        ]
        return [*singles[:-1], replace(singles[-1], failure=self.failure)]

    def close(self) -> None:
        """Close the files of the checkpoints."""
        for checkpoint in self.checkpoints:
            checkpoint.close()
