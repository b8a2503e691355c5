"""Pipeline of a run: fetch, merge, finish and publish batches of steps at the same time.

While the calling thread merges a batch, the next batch is fetched, the batch before it is finished and the one before
that is published, each in a thread of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch

from hubmerge.errors import HubmergeError, MachineError
from hubmerge.executor.parallel.threads import set_kernel_threads
from hubmerge.executor.state import MergeState
from hubmerge.report.report import RunReport
from hubmerge.run.fetch_stage import FetchStage
from hubmerge.run.finish_stage import FinishStage
from hubmerge.run.merge_stage import MergeStage
from hubmerge.run.publish_stage import PublishStage
from hubmerge.run.run_context import RunContext
from hubmerge.run.step_batch import StepBatch
from hubmerge.stream.open_source import partial_folder
from hubmerge.support import interrupts
from hubmerge.support.workspace import Workspace

MAX_UNFINISHED = 2
"""Number of batches that may be merged and not yet published: bounds the disk for states and merged models."""


@dataclass(frozen=True)
class Stages:
    """The stages of a run, in order."""

    fetch: FetchStage
    merge: MergeStage
    finish: FinishStage
    publish: PublishStage


class Pipeline:
    """One pass of batches through the stages.

    An error stops the pipeline. Batches before the failed step are finished and published before the error is raised,
    so that the next run continues after them.
    """

    def __init__(
        self,
        context: RunContext,
        stages: Stages,
        workspace: Workspace,
        *,
        first: int,
        state: MergeState | None,
        report: RunReport,
    ) -> None:
        """Prepare a pass.

        Args:
            context: The run.
            stages: The stages.
            workspace: Work folder for states and merged models.
            first: First step to finish and publish. Steps before it are merged only.
            state: State to continue from, None to begin at step 1.
            report: Report up to the step before `first`.
        """
        self._context = context
        self._stages = stages
        self._workspace = workspace
        self._first = first
        self._state = state
        self._finished = _completed(StepBatch(range(first, first), report=report))
        self._queue: deque[range] = deque()
        self._fetched: dict[range, Future[StepBatch]] = {}
        self._unpublished: deque[tuple[range, Future[StepBatch]]] = deque()
        self._failure: HubmergeError | None = None

    def run(self, batches: Iterable[range]) -> Iterator[StepBatch]:
        """Merge batches in order and yield each one that has steps to publish, once it is published.

        Raises:
            HubmergeError: A stage failed.
        """
        self._queue.extend(batches)
        missing = self._context.stream.length - self._first + 1
        title = "steps" if missing > 1 else f"step {self._first}"
        with (
            self._context.progress.stage(title, missing) as self._advance,
            ExitStack() as pools,
            _stopped_by_interrupts(),
        ):
            # Tasks are scored during a merge, and the merge sets the number of threads of every kernel to one.
            threads = torch.get_num_threads()
            self._fetching, self._finishing, self._publishing = (
                _pool(pools, name, threads) for name in ("fetch", "finish", "publish")
            )
            self._fetch_next()
            while self._queue and self._failure is None:
                batch = self._merge(self._next_fetched())
                if batch is not None:
                    self._submit(batch)
                    yield from self._published(MAX_UNFINISHED)
                    self._remove_states(self._unpublished[0][0][0] if self._unpublished else batch.last)
            yield from self._published(0)
            if self._state is not None:
                self._remove_states(self._state.step + 1)
            if self._failure is not None:
                raise self._failure

    def _fetch_next(self) -> None:
        """Start to fetch the first batch of the queue, unless that is done already."""
        if self._queue and self._queue[0] not in self._fetched:
            batch = StepBatch(self._queue[0])
            self._fetched[batch.steps] = self._fetching.submit(self._stages.fetch.fetch, batch)

    def _next_fetched(self) -> StepBatch:
        steps = self._queue.popleft()
        batch = self._fetched.pop(steps).result()
        self._failure = batch.failure
        if self._failure is None:
            self._fetch_next()
        return batch

    def _merge(self, batch: StepBatch) -> StepBatch | None:
        """Merge a fetched batch; return None if it has no step, or if it failed.

        A batch that fails is split into single steps, so that the steps before the bad checkpoint are kept.
        """
        if not batch.steps:
            return None
        if self._state is not None and self._state.step >= batch.last:
            return replace(batch, state=self._state)  # merged by an earlier run
        folder = self._workspace.state_folder(self._context.stream.chain[batch.last])
        try:
            batch = self._stages.merge.merge(batch, self._state, folder)
        except HubmergeError as error:
            if len(batch.steps) == 1 or isinstance(error, MachineError):
                self._failure = error
            else:
                self._failure = None
                self._retry(batch)
            return None
        self._state = batch.state
        return batch

    def _retry(self, batch: StepBatch) -> None:
        """Put the steps of a batch back at the head of the queue, one by one."""
        singles = batch.single_steps()
        self._fetched |= {single.steps: _completed(single) for single in singles}
        self._queue.extendleft(single.steps for single in reversed(singles))

    def _submit(self, batch: StepBatch) -> None:
        """Start to finish and publish a merged batch, without its steps before the first one to publish."""
        batch = batch.from_step(self._first)
        if batch.steps:
            self._finished = self._finishing.submit(self._finish, batch, self._finished)
            published = self._publishing.submit(self._publish, self._finished)
            self._unpublished.append((batch.steps, published))

    def _finish(self, batch: StepBatch, before: Future[StepBatch]) -> StepBatch:
        so_far = before.result().finished_report
        batch = self._stages.finish.finish(batch, so_far, self._workspace.step_folder(batch.last))
        batch.close()
        later = self._context.plan.sources[batch.last + 1 :]
        self._workspace.remove_partial_downloads(
            keep={partial_folder(one.source, self._workspace.partial_downloads) for one in later}
        )
        return batch

    def _publish(self, finished: Future[StepBatch]) -> StepBatch:
        return self._stages.publish.publish(finished.result())

    def _published(self, most: int) -> Iterator[StepBatch]:
        """Yield published batches until at most `most` are left, then those that are published by now."""
        while self._unpublished and (len(self._unpublished) > most or self._unpublished[0][1].done()):
            steps, published = self._unpublished.popleft()
            batch = published.result()
            self._advance(len(steps))
            yield batch

    def _remove_states(self, unpublished: int) -> None:
        """Keep the states from the one before the first unpublished step up to the newest; remove all others."""
        newest = self._state.step if self._state is not None else 0
        oldest = max(min(unpublished - 1, newest), 0)
        self._workspace.remove_states(keep=set(self._context.stream.chain[oldest : newest + 1]))


def _completed(batch: StepBatch) -> Future[StepBatch]:
    future: Future[StepBatch] = Future()
    future.set_result(batch)
    return future


@contextmanager
def _stopped_by_interrupts() -> Iterator[None]:
    """Stop the threads of all stages if an interrupt ends the block, whoever handles the signal."""
    try:
        yield
    except KeyboardInterrupt:
        interrupts.request()
        raise


def _pool(pools: ExitStack, name: str, threads: int) -> ThreadPoolExecutor:
    """Return a pool of one thread, whose kernels use `threads` threads; its queued work is dropped when a run fails."""
    pool = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=set_kernel_threads, initargs=(threads,))
    pools.callback(pool.shutdown, wait=True, cancel_futures=True)
    return pool
