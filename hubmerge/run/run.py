"""One run of a recipe: the missing steps, in order, three stages at work at once.

While step t is merged, checkpoint t+1 is being fetched, the merged model of step t-1 is being written and scored, and
that of step t-2 published. A stage that fails stops the run; what the stages before it made stays good, and the next
run goes on from there. Steps whose models nobody asks for are done in stretches: see `StepMaker.stretches`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hubmerge.checkpoints import Checkpoint
from hubmerge.errors import HubmergeError, MachineError, TargetMovedError
from hubmerge.executor.parallel.processes import SINGLE_PROCESS, Processes
from hubmerge.executor.parallel.threads import compute_with
from hubmerge.executor.state import MergeState, find_state
from hubmerge.hub import fetch, publish
from hubmerge.plan.run_plan import check_room, plan_steps
from hubmerge.report.report import RunReport, StepReport
from hubmerge.run.out_folder import OutFolder
from hubmerge.run.publisher import Publisher
from hubmerge.run.step_maker import StepMaker
from hubmerge.run.step_report import read_stats, recorded_report
from hubmerge.stream.open_source import open_source, partial_folder
from hubmerge.stream.pinned import PinnedCommits
from hubmerge.stream.sources import fetch_folder
from hubmerge.stream.stream import Stream, resolve_stream
from hubmerge.support.files import remove_folder, write_text_atomic
from hubmerge.support.progress import Progress
from hubmerge.support.workspace import Workspace, open_workspace, workspace_name
from merge_recipes import LoadedRecipe

MAX_UNFINISHED = 2
"""How many steps may be merged and not yet recorded: bounds the disk that states and merged models take."""

MAX_REREADS = 20
"""How often a run goes on from what another one published meanwhile."""


@dataclass(frozen=True)
class Fetched:
    """The checkpoints of a stretch, and why they are not all, if so."""

    checkpoints: Sequence[Checkpoint]
    failure: HubmergeError | None = None


class Run:
    """A run that is ready to work: everything locked, and what is already done known. Use `Run.open`."""

    def __init__(
        self,
        stream: Stream,
        workspace: Workspace,
        progress: Progress,
        processes: Processes = SINGLE_PROCESS,
        out: OutFolder | None = None,
    ) -> None:
        self.stream = stream
        self._out = out
        self.workspace = workspace
        self.progress = progress
        self._processes = processes
        self._releaser = Publisher(stream, workspace, progress)
        self.report = recorded_report(stream, self._releaser.published, workspace)
        self._released = 0  # the last step that needs no releasing any more; each rests on the one before

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
        out: OutFolder | None = None,
    ) -> Iterator[Run]:
        """Lock the recipe's references and find out what is done; the work folder is this run's until the end.

        With `locked`, every commit is taken from the lock beside the recipe. With `replay`, published steps that the
        recipe no longer stands for are made anew. `processes` share the work on the tensors. `out` is where merged
        models are left besides.

        Raises:
            HubmergeError: a source, the target, the work folder or `out` cannot be used.
        """
        if out is not None:
            out.check()
        target = loaded.recipe.publish
        label = target.repo if target is not None else loaded.path.stem
        identity = f"{fetch.endpoint()} {target.repo}" if target is not None else str(loaded.path.absolute())
        with open_workspace(work_dir, workspace_name(identity, label)) as workspace:
            with progress.stage("resolve commits"):
                pinned = PinnedCommits.from_lock(loaded) if locked else PinnedCommits.gather(loaded, workspace)
                stream = resolve_stream(loaded, pinned, replay=replay, hash_folders=True)
            write_text_atomic(workspace.lock_file, stream.lock.to_yaml())
            if out is not None and out.every_step:
                stream = replace(stream, every_model=True)
            yield cls(stream, workspace, progress, processes, out)

    def steps(self) -> Iterator[StepReport]:
        """Do the steps that are missing, in order, and yield each one's report when it is finished.

        When another run publishes a step first, this one goes on from there.
        """
        for attempt in range(MAX_REREADS + 1):
            try:
                yield from self._missing_steps()
            except TargetMovedError:
                self.progress.note("the target repo moved: going on from what was published there")
                if attempt == MAX_REREADS or not self._reread():
                    raise
            else:
                return

    @property
    def first_step(self) -> int:
        """The first step that is not finished: merged, scored, and published where the recipe asks for it.

        The last one is not where its model is neither published nor here: it was a step between when it was made.
        """
        published, recorded = self._releaser.published_steps, len(self.report.steps)
        last = self.stream.length
        for step in range(1, last + 1):
            if step > (published if self.stream.publishes(step) else max(published, recorded)):
                return step
        here = self.stream.target is not None or self.workspace.step_folder(last).is_dir()
        return last + 1 if here else last

    def write_out(self) -> None:
        """Leave the last merged model in the folder the user named, if there is one.

        Raises:
            MachineError: the model is not there any more, or the folder cannot be written.
        """
        folder = self.workspace.step_folder(self.stream.length)
        if self._out is None:
            if self.stream.target is None and folder.is_dir():
                self.progress.note(f"the merged model lies in {folder}; --out DIR leaves it elsewhere")
            return
        if not folder.is_dir():
            if self.stream.target is None or self.stream.target.head is None:
                raise MachineError(f"{folder}: the merged model is not there any more", hint="use a new --work-dir")
            folder = publish.download_head(self.stream.target)
        self._out.copy(folder, self.stream.length)
        self.progress.note(f"the merged model lies in {self._out.place(self.stream.length)}")
        lacking = [step for step in range(1, self.stream.length) if not self._out.place(step).is_dir()]
        if lacking:
            listed = ", ".join(map(str, lacking))
            self.progress.note(
                f"not there: the models of step {listed}, which earlier runs made and did not keep; with another "
                "--work-dir they are made anew"
            )

    def addresses(self) -> list[str]:
        """Return the web addresses of the published steps."""
        wanted = self.stream.recipe.publish
        if wanted is None:
            return []
        steps = (report.step for report in self.report.steps)
        return [publish.step_url(wanted.repo, step) for step in steps if self.stream.publishes(step)]

    def _missing_steps(self) -> Iterator[StepReport]:
        if self._releaser.undo_other_steps():
            self._reread()
        self._releaser.mend_tags()
        first = self.first_step
        if first > self.stream.length:
            return
        wanted = self.stream.recipe.publish
        if wanted is not None:
            publish.check_token(wanted.repo)
        state = self._newest_state(first)
        begin = 1 if state is None else min(state.step + 1, first)
        plan = plan_steps(self.stream, begin, self.progress)
        for line in plan.loading:
            self.progress.note(line)
        check_room(plan, self.workspace.folder, fetch.cache_folder())
        with self.progress.stage("fetch the base model", unit="bytes"):
            base_folder = fetch_folder(self.stream.base, auxiliary=True)
        maker = StepMaker(self.stream, plan, base_folder, self.workspace.cache, self.progress, self._processes)
        yield from self._work(maker, state, begin, first)

    def _work(self, maker: StepMaker, state: MergeState | None, begin: int, first: int) -> Iterator[StepReport]:
        """Merge the steps from `begin` on; those from `first` on are finished, released and recorded as well."""
        with ExitStack() as pools:
            # Tasks are scored while the next step is merged, and that lets every kernel have one thread.
            threads = torch.get_num_threads()
            fetching, finishing, releasing = (_pool(pools, name, threads) for name in ("fetch", "finish", "release"))
            unfinished: deque[tuple[range, Future[tuple[StepReport, ...]]]] = deque()
            so_far: Future[RunReport] = Future()
            so_far.set_result(self.report.until(first - 1))
            self._released = first - 1
            stretches = deque(maker.stretches(begin))
            if state is not None and state.step >= begin:
                # It was merged, and not finished.
                stretches = deque([range(begin, state.step + 1), *maker.stretches(state.step + 1)])
            coming = {stretches[0]: fetching.submit(self._fetch, maker, stretches[0])}
            failure: HubmergeError | None = None
            while stretches and failure is None:
                stretch = stretches.popleft()
                with self.progress.stage(maker.title(stretch, "fetch")):
                    fetched = coming.pop(stretch).result()
                # The steps before one that fails are good: they are finished before the run says what is wrong.
                failure, stretch = fetched.failure, stretch[: len(fetched.checkpoints)]
                if stretches and failure is None and stretches[0] not in coming:
                    coming[stretches[0]] = fetching.submit(self._fetch, maker, stretches[0])
                if stretch and (state is None or state.step < stretch[-1]):
                    folder = self.workspace.state_folder(self.stream.chain[stretch[-1]])
                    try:
                        state = maker.merge(stretch, fetched.checkpoints, state, folder)
                    except HubmergeError as error:
                        if len(stretch) == 1 or isinstance(error, MachineError):
                            failure = error
                            break
                        failure = None
                        coming |= _one_by_one(stretch, fetched)
                        stretches.extendleft(range(step, step + 1) for step in reversed(stretch))
                        continue
                if state is None or not stretch:
                    break
                missing = range(max(stretch[0], first), stretch[-1] + 1)
                if missing:
                    so_far = finishing.submit(self._finish, maker, missing, state, fetched.checkpoints, so_far)
                    unfinished.append((missing, releasing.submit(self._release, missing, state, so_far)))
                else:
                    _close(fetched.checkpoints)
                while unfinished and (len(unfinished) > MAX_UNFINISHED or unfinished[0][1].done()):
                    yield from unfinished.popleft()[1].result()
                self._forget_states(unfinished[0][0][0] if unfinished else stretch[-1], stretch[-1])
            while unfinished:
                yield from unfinished.popleft()[1].result()
            if state is not None:
                self._forget_states(state.step + 1, state.step)
            if failure is not None:
                raise failure

    def _fetch(self, maker: StepMaker, stretch: range) -> Fetched:
        """Have the checkpoints of a stretch here, up to the first that fails."""
        checkpoints: list[Checkpoint] = []
        for step in stretch:
            try:
                checkpoints.append(self._fetch_one(maker, step))
            except HubmergeError as error:
                return Fetched(checkpoints, error)
        return Fetched(checkpoints)

    def _fetch_one(self, maker: StepMaker, step: int) -> Checkpoint:
        """Have a step's checkpoint here: whole, in the Hub cache, or what of it is merged, in the work folder."""
        if self.stream.recipe.fetch == "cache":
            return open_source(maker.plan.sources[step].source)
        checkpoint = open_source(maker.plan.sources[step].source, self.workspace.parts)
        maker.prepare(checkpoint)
        return checkpoint

    def _finish(
        self,
        maker: StepMaker,
        stretch: range,
        state: MergeState,
        checkpoints: Sequence[Checkpoint],
        so_far: Future[RunReport],
    ) -> RunReport:
        """Write and score what is wanted of a stretch: the model after its last step, or nothing but the figures."""
        last = stretch[-1]
        report = maker.record(range(stretch[0], last), state, so_far.result())
        if self.stream.needs_model(last):
            report = maker.finish(last, state, checkpoints[-1], report, self.workspace.step_folder(last))
        else:
            report = maker.record(range(last, last + 1), state, report)
        _close(checkpoints)
        coming = (maker.plan.sources[number].source for number in range(last + 1, self.stream.length + 1))
        self.workspace.forget_parts({partial_folder(source, self.workspace.parts) for source in coming})
        return report

    def _release(self, stretch: range, state: MergeState, finished: Future[RunReport]) -> tuple[StepReport, ...]:
        """Publish the last step of a stretch, then record all; the files of earlier steps are not needed any more."""
        report, step = finished.result(), stretch[-1]
        if self._released != stretch[0] - 1:
            raise HubmergeError(f"step {stretch[0]} cannot be published: step {stretch[0] - 1} was not")
        self._releaser.release(step, self.workspace.step_folder(step), state)
        self.report = report
        write_text_atomic(self.workspace.report_file, report.to_json())
        for earlier in range(1, step):
            self._put_away(earlier)
        self._released = step
        return report.steps[-len(stretch) :]

    def _put_away(self, step: int) -> None:
        """Move the merged model of a step out of the work folder, to where it is wanted or to nowhere."""
        folder = self.workspace.step_folder(step)
        if self._out is not None and self._out.every_step:
            self._out.move(folder, step)
        else:
            remove_folder(folder)

    def _newest_state(self, first: int) -> MergeState | None:
        """The newest state to go on from: one before the first missing step, or one to finish missing steps from."""
        for step in range(self.stream.length, 0, -1):
            if any(self.stream.needs_state(missing) for missing in range(first, step)):
                continue
            folder = self.workspace.state_folder(self.stream.chain[step])
            figures = read_stats(folder)
            if (figures and min(figures) <= first) or (step < first and self._releaser.fetch_state(step, folder)):
                return find_state(folder)
        return None

    def _forget_states(self, unfinished: int, newest: int) -> None:
        """Keep the states from the one before the oldest unfinished step up to the newest."""
        oldest = max(min(unfinished - 1, newest), 0)
        self.workspace.forget_states(set(self.stream.chain[oldest : newest + 1]))

    def _reread(self) -> bool:
        """Look at what the target holds now; False if nothing of this stream has come to it."""
        if self.stream.target is None:
            return False
        before = self._releaser.published_steps
        self.stream = replace(self.stream, target=publish.read_target(self.stream.target.repo))
        self._releaser = Publisher(self.stream, self.workspace, self.progress)
        self.report = recorded_report(self.stream, self._releaser.published, self.workspace)
        return self._releaser.published_steps > before


def _one_by_one(stretch: range, fetched: Fetched) -> dict[range, Future[Fetched]]:
    """What was fetched for a stretch, for each of its steps alone; what is missing after it is told with the last."""
    found: dict[range, Future[Fetched]] = {}
    for step, checkpoint in zip(stretch, fetched.checkpoints, strict=True):
        here: Future[Fetched] = Future()
        here.set_result(Fetched([checkpoint], fetched.failure if step == stretch[-1] else None))
        found[range(step, step + 1)] = here
    return found


def _close(checkpoints: Sequence[Checkpoint]) -> None:
    for checkpoint in checkpoints:
        checkpoint.close()


def _pool(pools: ExitStack, name: str, threads: int) -> ThreadPoolExecutor:
    """A thread that works in order; when the run fails, what it has not begun is dropped.

    `threads` is how many its kernels use.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=compute_with, initargs=(threads,))
    pools.callback(pool.shutdown, wait=True, cancel_futures=True)
    return pool
