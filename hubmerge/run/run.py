"""Run of a recipe: the missing steps, merged, scored and published in order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hubmerge.errors import MachineError, TargetMovedError
from hubmerge.executor.parallel.processes import SINGLE_PROCESS, Processes
from hubmerge.executor.state import MergeState, load_state
from hubmerge.hub import client, fetch, publish
from hubmerge.plan.disk import check_room
from hubmerge.plan.plan_run import plan_steps
from hubmerge.plan.preflight import resolve_checked
from hubmerge.plan.signing import checked_signer
from hubmerge.plan.stage_headers import check_with_stages
from hubmerge.report.history import ReadHistory, report_until
from hubmerge.report.report import RunReport, StepReport
from hubmerge.run.batches import batches_from
from hubmerge.run.fetch_stage import FetchStage
from hubmerge.run.finish_stage import FinishStage
from hubmerge.run.history import check_history
from hubmerge.run.kept_states import kept_state
from hubmerge.run.measures import by_name_warnings
from hubmerge.run.merge_stage import MergeStage
from hubmerge.run.model_folder import is_kept_model
from hubmerge.run.output_folder import OutputFolder, checked_output
from hubmerge.run.pipeline import Pipeline, Stages
from hubmerge.run.publish_stage import PublishStage
from hubmerge.run.publisher import Publisher
from hubmerge.run.run_context import RunContext
from hubmerge.run.stage_models import merge_stages, stage_reports
from hubmerge.run.step_report import read_stats, recorded_report
from hubmerge.stream.pinned import PinnedCommits
from hubmerge.stream.sources import fetch_folder
from hubmerge.stream.step_history import history_reader
from hubmerge.stream.stream import Stream
from hubmerge.stream.work_files import write_work_lock
from hubmerge.support.progress import Progress, counting
from hubmerge.support.stages import BYTES
from hubmerge.support.workspace import Workspace, open_workspace, workspace_name
from merge_recipes import LoadedRecipe

MAX_RESUMES = 20
"""Number of times a run continues from what another run published meanwhile."""


class Run:
    """A resolved recipe with its merge and its target repo. Create it with `Run.open`.

    Attributes:
        stream: The stream.
        workspace: The work folder.
        report: Report of the steps that are finished so far.
    """

    def __init__(
        self,
        stream: Stream,
        workspace: Workspace,
        progress: Progress,
        processes: Processes = SINGLE_PROCESS,
        out: OutputFolder | None = None,
    ) -> None:
        self.stream = stream
        self.workspace = workspace
        self._progress = progress
        self._processes = processes
        self._out = out
        self._publisher = Publisher(stream, workspace, progress)
        self.report: RunReport = recorded_report(stream, self._publisher.published, workspace)

    @classmethod
    @contextmanager
    def open(
        cls,
        loaded: LoadedRecipe,
        work_dir: Path,
        progress: Progress,
        *,
        locked: bool = False,
        replay: bool = False,
        processes: Processes = SINGLE_PROCESS,
        out: OutputFolder | None = None,
    ) -> Iterator[Run]:
        """Resolve the references of a recipe and find the finished steps; lock the work folder until the block ends.

        Args:
            loaded: The recipe.
            work_dir: Parent of the work folder.
            progress: Receiver of stages and notes.
            locked: Take every commit from the lock beside the recipe.
            replay: Merge published steps again from the first one that no longer matches the recipe.
            processes: Processes that share the work on tensors.
            out: Folder for merged models, None to leave them in the work folder.

        Raises:
            HubmergeError: A source, the target repo, the work folder or `out` cannot be used.
        """
        target = loaded.recipe.publish
        label = target.repo if target is not None else loaded.path.stem
        identity = f"{client.endpoint()} {target.repo}" if target is not None else loaded.identity
        with checked_output(out), open_workspace(work_dir, workspace_name(identity, label)) as workspace:
            with progress.stage("resolve commits"):
                pinned = (PinnedCommits.from_lock if locked else PinnedCommits.gather)(loaded, workspace)
                stream = resolve_checked(loaded, pinned, replay=replay, hash_folders=True)
            write_work_lock(workspace, stream.lock)
            if out is not None:
                out.check_state(stream.recipe.merge_method, is_joint=stream.is_joint)
                stream = replace(stream, every_model=stream.every_model or out.every_step)
            yield cls(stream, workspace, progress, processes, out)

    def steps(self) -> Iterator[StepReport]:
        """Merge, score and publish the missing steps in order, and yield the report of each finished step.

        If another run publishes a step first, continue after that step.

        Raises:
            HubmergeError: A step failed. The steps before it are finished.
        """
        for attempt in range(MAX_RESUMES + 1):
            try:
                yield from self._missing_steps()
            except TargetMovedError:
                self._progress.note("another run published to the target repo: continuing from its last step")
                if attempt == MAX_RESUMES or not self._reread_target():
                    raise
            else:
                return

    @property
    def first_step(self) -> int:
        """The first step that is not merged, or not published although the recipe publishes it.

        The last step also counts as unfinished if its model is neither published nor on disk.
        """
        published, recorded = self._publisher.published_steps, len(self.report.steps)
        last = self.stream.length
        for step in range(1, last + 1):
            if step > (published if self.stream.publishes(step) else max(published, recorded)):
                return step
        exists = self.stream.target is not None or is_kept_model(self.workspace.step_folder(last))
        return last + 1 if exists else last

    def write_out(self) -> None:
        """Copy the last merged model to the output folder, if there is one.

        Raises:
            MachineError: The model is not on disk, or the folder cannot be written.
        """
        folder = self.workspace.step_folder(self.stream.length)
        kept = is_kept_model(folder)
        if self._out is None:
            if self.stream.target is None and kept:
                self._progress.note(f"merged model: {folder} (choose a folder with --out)")
            return
        if not kept:
            if self.stream.target is None or self.stream.target.head is None:
                raise MachineError(
                    f"merged model not found: {folder}",
                    hint="merge again with another --work-dir",
                    file=str(folder),
                )
            folder = publish.download_head(self.stream.target)
        with self._progress.stage(f"copy the merged model to {self._out.folder}"):
            # A kept model is compared with its digests before it is used again, so linked files may be changed.
            self._out.copy(folder, self.stream.length, self._read_history(self.report), link=kept)
            if self._out.with_state:
                self._write_state(self._out)
        self._progress.note(f"merged model: {self._out.place(self.stream.length)}")
        missing = [step for step in range(1, self.stream.length) if not self._out.place(step).is_dir()]
        if missing:
            self._progress.note(
                f"models not written: step {', '.join(map(str, missing))} (merged by an earlier run, which kept no "
                "model; to write them, merge again with another --work-dir)"
            )

    def _write_state(self, out: OutputFolder) -> None:
        """Copy the state after the last step to the output folder.

        Raises:
            MachineError: The state is neither on disk nor published.
        """
        step = self.stream.length
        chain = self.stream.chain[step]
        folder = self.workspace.state_folder(chain)
        if kept_state(folder, chain) is None and not self._publisher.fetch_state(step, folder):
            raise MachineError(
                f"state not found: {folder}", hint="merge again with another --work-dir", file=str(folder)
            )
        out.copy_state(folder, step)

    def addresses(self) -> list[str]:
        """Return the web addresses of the published steps."""
        target = self.stream.recipe.publish
        if target is None:
            return []
        steps = (report.step for report in self.report.steps)
        return [publish.step_url(target.repo, step) for step in steps if self.stream.publishes(step)]

    def _missing_steps(self) -> Iterator[StepReport]:
        if self._publisher.roll_back_other_steps():
            self._reread_target()
        self._publisher.set_missing_tags()
        first = self.first_step
        if first > self.stream.length:
            return
        check_history(self.stream.target, self._publisher.published)
        self._publisher.signer = checked_signer(self.stream.loaded, self._shared_folders())
        checked = check_with_stages(self.stream, first, self.report, self._progress)
        self.stream = merge_stages(self.stream, self.workspace, self._progress, self._run_stage)
        kept, licenses = checked.kept, checked.licenses
        self._publisher.own = kept.own
        notes = (f"note: {note}" for task in checked.tasks for note in task.notes)
        for line in (*checked.warning_lines, *licenses.notes, *notes):
            self._progress.note(line)
        state = self._newest_state(first)
        begin = 1 if state is None else min(state.step + 1, first)
        if self.stream.is_joint:
            begin = first
        context = replace(self._prepare(begin), card=kept.card, writes_notice=kept.writes_notice, licenses=licenses)
        context = replace(context, recorded=self.report.tasks, others=kept.others)
        batches = batches_from(context, begin)
        if state is not None and state.step >= begin:
            # Merged by an earlier run, but not finished.
            batches = iter([range(begin, state.step + 1), *batches_from(context, state.step + 1)])
        report = report_until(self.report, first - 1, self._read_history(self.report))
        report = replace(report, stages=stage_reports(self.stream))
        stages = self._stages(context, first)
        pipeline = Pipeline(context, stages, self.workspace, first=first, state=state, report=report)
        for batch in pipeline.run(batches):
            self.report = batch.finished_report
            yield from batch.step_reports

    def _run_stage(self, stream: Stream, workspace: Workspace) -> RunReport:
        """Do the missing steps of a stage, and return its report."""
        run = Run(stream, workspace, self._progress, self._processes)
        for step in run.steps():
            self._progress.note(f"stage {stream.loaded.stage}: step {step.step} of {stream.length} merged")
        return run.report

    def _prepare(self, begin: int) -> RunContext:
        """Plan the steps from `begin` on, check the free disk space and fetch the base model."""
        plan = plan_steps(self.stream, begin, self._progress, recorded=self.report)
        notes = (f"note: {note}" for note in plan.notes)
        warnings = (f"warning: {text}" for text in (*by_name_warnings(plan.merge), *plan.other_tokens.values()))
        for line in (*plan.loading, *notes, *warnings):
            self._progress.note(line)
        check_room(plan, self.workspace.folder, fetch.hub_cache())
        size = plan.sources[0].missing_bytes
        with self._progress.stage("fetch the base model", size or None, BYTES) as advance, counting(advance):
            base_folder = fetch_folder(self.stream.base, auxiliary=True)
        context = RunContext(self.stream, plan, base_folder, self.workspace.cache, self._progress, self._processes)
        return replace(context, older_steps=self.report.older_steps, history=self.workspace.history)

    def _read_history(self, report: RunReport) -> ReadHistory:
        return history_reader(report, self.workspace.history, self.stream.target)

    def _stages(self, context: RunContext, first: int) -> Stages:
        return Stages(
            FetchStage(context, self.workspace.partial_downloads),
            MergeStage(context),
            FinishStage(context, prepares_all=True),
            PublishStage(self._publisher, self.workspace, self._out, first=first),
        )

    def _shared_folders(self) -> dict[str, Path]:
        """Return the folders of this run in which no private key may be."""
        folders = {"the work folder": self.workspace.folder}
        return folders if self._out is None else {**folders, "--out": self._out.folder}

    def _newest_state(self, first: int) -> MergeState | None:
        """Return the newest state from which every needed state of the steps from `first` on can still be made."""
        if self.stream.is_joint:
            return None
        for step in range(self.stream.length, 0, -1):
            if any(self.stream.needs_state(missing) for missing in range(first, step)):
                continue
            chain = self.stream.chain[step]
            folder = self.workspace.state_folder(chain)
            state = kept_state(folder, chain)
            stats = {} if state is None else read_stats(folder)
            if state is not None and (step < first or (stats and min(stats) <= first)):
                return state
            if step < first and self._publisher.fetch_state(step, folder):
                return load_state(folder)
        return None

    def _reread_target(self) -> bool:
        """Read the target repo again, and return True if it has more steps of this stream than before."""
        if self.stream.target is None:
            return False
        before = self._publisher.published_steps
        self.stream = replace(self.stream, target=publish.read_target(self.stream.target.repo))
        self._publisher = Publisher(self.stream, self.workspace, self._progress)
        self.report = recorded_report(self.stream, self._publisher.published, self.workspace)
        return self._publisher.published_steps > before
