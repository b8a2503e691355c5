"""Last stage of a run: publish and record a finished batch."""

from __future__ import annotations

from hubmerge.errors import HubmergeError
from hubmerge.report.report import RunReport
from hubmerge.run.output_folder import OutputFolder
from hubmerge.run.publisher import Publisher
from hubmerge.run.step_batch import StepBatch
from hubmerge.stream.step_history import history_reader
from hubmerge.support import interrupts
from hubmerge.support.files import remove_folder, write_text_atomic
from hubmerge.support.workspace import Workspace


class PublishStage:
    """Publication of finished batches in order; each one follows the batch before it."""

    def __init__(self, publisher: Publisher, workspace: Workspace, out: OutputFolder | None, *, first: int) -> None:
        """Prepare to publish.

        Args:
            publisher: The target repo.
            workspace: Work folder with the merged models.
            out: Folder for the merged models of every step, None if there is none.
            first: First step that is not published and recorded yet.
        """
        self._publisher = publisher
        self._workspace = workspace
        self._out = out
        self._next = first
        self._oldest = 1  # of the steps whose models may be in the work folder

    def publish(self, batch: StepBatch) -> StepBatch:
        """Publish the last step of a batch, write the report, and remove the models of earlier steps.

        Raises:
            HubError: The Hub refuses the upload.
            TargetMovedError: Another writer committed to the target repo.
        """
        first, last = batch.steps[0], batch.last
        interrupts.check()
        if first != self._next:
            raise HubmergeError(f"step {first} cannot be published before step {self._next}")
        report = batch.finished_report
        self._publisher.publish(last, self._workspace.step_folder(last), batch.state, report)
        write_text_atomic(self._workspace.report_file, report.to_json())
        for earlier in range(self._oldest, last):
            self._move_model(earlier, batch.finished_report)
        self._oldest = last
        self._next = last + 1
        return batch

    def _move_model(self, step: int, report: RunReport) -> None:
        """Move the merged model of a step from the work folder to the output folder, or remove it."""
        folder = self._workspace.step_folder(step)
        if self._out is not None and self._out.every_step:
            target = self._publisher.stream.target
            self._out.move(folder, step, history_reader(report, self._workspace.history, target))
        else:
            remove_folder(folder)
