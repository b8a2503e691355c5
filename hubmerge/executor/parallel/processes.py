"""Several processes that share the work on one step, and fail together.

Every process calls the same functions with the same arguments and processes its share of the tensors. Processes
synchronize in `gather`; a failure is re-raised in all of them at the next one. Only the first process, rank 0, creates
files and renames them when they are complete.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from hubmerge.errors import HubmergeError, MachineError
from hubmerge.executor.parallel.scheduling import Item, available_cpus, for_each_tensor

T = TypeVar("T")
Result = TypeVar("Result")


class Processes(Protocol):
    """The processes of a run, as one of them sees them."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        ...

    @property
    def count(self) -> int:
        """Number of processes."""
        ...

    @property
    def on_this_machine(self) -> int:
        """Number of processes that share the CPUs of this machine."""
        ...

    @property
    def task_lock(self) -> AbstractContextManager[object]:
        """Lock for one task of all processes, so that threads of this process start tasks one after another."""
        ...

    def exchange(self, value: Any) -> list[Any]:
        """Wait for all processes, send them `value`, and return the values of all, by rank."""
        ...


class OneProcess:
    """Implementation of `Processes` for a run in a single process."""

    rank = 0
    count = 1
    on_this_machine = 1
    task_lock = nullcontext()

    def exchange(self, value: Any) -> list[Any]:
        """Return the value of the only process."""
        return [value]


SINGLE_PROCESS = OneProcess()


@dataclass(frozen=True)
class Failure:
    """Message to the other processes: the error of one process."""

    error: BaseException


@dataclass(frozen=True)
class Shutdown:
    """Last message of the first process: the exit status of the run."""

    status: int


class _StoppedError(MachineError):
    """A process that stopped because another one failed; the error of that one is raised instead."""


def gather(processes: Processes, value: T) -> list[T]:
    """Return the values of all processes, by rank.

    Raises:
        Exception: in all processes, the error of one that failed since they last synchronized.
    """
    values = processes.exchange(value)
    failures = [item.error for item in values if isinstance(item, Failure)]
    if failures:
        raise mark_shared(next((error for error in failures if not isinstance(error, _StoppedError)), failures[0]))
    return values


def barrier(processes: Processes) -> None:
    """Wait until all processes reach this point."""
    gather(processes, None)


@contextmanager
def failing_together(processes: Processes) -> Iterator[None]:
    """Run a block in every process; if it fails in one, raise the error of that process in all."""
    try:
        yield
        barrier(processes)
    except BaseException as error:
        if processes.count > 1 and not is_shared(error):
            gather(processes, Failure(_portable(error)))
        raise


def is_shared(error: BaseException) -> bool:
    """Return True if all processes raise this error."""
    return getattr(error, "hubmerge_shared", False)


def mark_shared(error: BaseException) -> BaseException:
    """Mark an error that all processes raise, and return it."""
    error.hubmerge_shared = True  # type: ignore[attr-defined]
    return error


def _portable(error: BaseException) -> BaseException:
    """Return the error, or a `HubmergeError` with its text if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - pickled in the same line
    except Exception:
        return HubmergeError(f"{type(error).__name__}: {error}")
    return error


def divide_work(costs: Sequence[float], count: int) -> list[list[int]]:
    """Divide work among processes: the most expensive item first, each to the process with the least work so far.

    Args:
        costs: estimated cost of each item.
        count: number of processes.

    Returns:
        For each process, the indices of its items in ascending order.

    Example:
        >>> divide_work([5.0, 4.0, 3.0, 3.0, 1.0], 2)
        [[0, 3], [1, 2, 4]]
    """
    loads = [0.0] * count
    shares: list[list[int]] = [[] for _ in range(count)]
    for index in sorted(range(len(costs)), key=lambda index: -costs[index]):
        least = loads.index(min(loads))
        shares[least].append(index)
        # An item without arithmetic is read and written too.
        loads[least] += costs[index] + 1.0
    return [sorted(share) for share in shares]


def run_share(
    tensors: Sequence[Item],
    work: Callable[[Item], Result],
    *,
    processes: Processes,
    cost: Callable[[Item], float],
    stop: Path,
    workers: int | None = None,
    on_tensor: Callable[[Item], None] | None = None,
) -> dict[int, Result]:
    """Call `work(tensor)` for this process's share of the tensors.

    Args:
        tensors: all tensors, equal in all processes.
        work: called on several threads, see `for_each_tensor`.
        processes: the processes that share the work.
        cost: estimated cost of a tensor.
        stop: file that a failing process creates to stop the others, see `stop_file`.
        workers: number of threads; None for an equal share of the CPUs.
        on_tensor: called with each tensor that is done.

    Returns:
        The result for each index of the share.
    """
    if processes.count == 1:
        return dict(enumerate(for_each_tensor(tensors, work, workers=workers, on_tensor=on_tensor)))
    own = divide_work([cost(tensor) for tensor in tensors], processes.count)[processes.rank]
    threads = workers or max(1, available_cpus() // processes.on_this_machine)
    try:
        results = for_each_tensor(
            [tensors[index] for index in own], _unless_stopped(work, stop), workers=threads, on_tensor=on_tensor
        )
    except BaseException:
        with suppress(OSError):
            stop.touch()
        raise
    return dict(zip(own, results, strict=True))


def _unless_stopped(work: Callable[[Item], Result], stop: Path) -> Callable[[Item], Result]:
    """Return `work` with a check, before each call, that no other process failed."""

    def checked(tensor: Item) -> Result:
        if stop.exists():
            raise _StoppedError("another process of this run failed", hint="run the same command again to continue")
        return work(tensor)

    return checked


def stop_file(folder: Path, processes: Processes) -> Path:
    """Return the path of the file that stops work on `folder`, after removing one that an earlier run left."""
    stop = folder.with_name(f".{folder.name}.stop")
    if processes.count > 1:
        if processes.rank == 0:
            stop.unlink(missing_ok=True)
        barrier(processes)
    return stop


def ordered_results(shares: Sequence[Mapping[int, Result]]) -> list[Result]:
    """Return the results of `run_share` in all processes, in the order of the tensors."""
    results = {index: result for share in shares for index, result in share.items()}
    return [results[index] for index in sorted(results)]


def report_other_shares(
    tensors: Sequence[Item], own: Mapping[int, object], on_tensor: Callable[[Item], None] | None
) -> None:
    """Call `on_tensor` for the tensors that other processes did; `own` has the results of this process."""
    if on_tensor is None:
        return
    for index, tensor in enumerate(tensors):
        if index not in own:
            on_tensor(tensor)
