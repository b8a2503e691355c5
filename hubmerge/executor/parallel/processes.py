"""Several processes that work on one step together: who does what, and how all of them end when one fails.

Every process calls the same functions with the same arguments and takes its share of the tensors. They meet in
`gather`; whoever failed tells so at the next meeting, and the error is then raised in all of them. The first process,
rank 0, alone lays out files and gives them their names.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from hubmerge.errors import HubmergeError, MachineError
from hubmerge.executor.parallel.scheduling import Piece, available_cpus, for_each_tensor

T = TypeVar("T")
Result = TypeVar("Result")


class Processes(Protocol):
    """The processes of a run, seen from one of them."""

    @property
    def rank(self) -> int:
        """Which one this is, counted from 0."""
        ...

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    @property
    def on_this_machine(self) -> int:
        """How many of them share this machine's CPUs."""
        ...

    @property
    def turn(self) -> AbstractContextManager[object]:
        """Held during one piece of work in all processes, where threads of this one want several at a time."""
        ...

    def exchange(self, value: Any) -> list[Any]:
        """Meet all other processes, give them `value`, and return what each gives, in order of rank."""
        ...


class OneProcess:
    """A run in a single process."""

    rank = 0
    count = 1
    on_this_machine = 1
    turn = nullcontext()

    def exchange(self, value: Any) -> list[Any]:
        """There is nobody to meet."""
        return [value]


SINGLE_PROCESS = OneProcess()


@dataclass(frozen=True)
class Failure:
    """An error of one process, on its way to the others."""

    error: BaseException


class _StoppedError(MachineError):
    """Another process failed, and its error is the one to tell."""


def gather(processes: Processes, value: T) -> list[T]:
    """What every process gives, in order of rank.

    Raises the error of a process that failed since the last meeting, in all of them.
    """
    found = processes.exchange(value)
    failures = [item.error for item in found if isinstance(item, Failure)]
    if failures:
        raise mark_shared(next((error for error in failures if not isinstance(error, _StoppedError)), failures[0]))
    return found


def barrier(processes: Processes) -> None:
    """Go on when all processes have come to this point."""
    gather(processes, None)


@contextmanager
def failing_together(processes: Processes) -> Iterator[None]:
    """A block that every process runs: it ends in all of them alike, with the same error if one of them fails."""
    try:
        yield
        barrier(processes)
    except BaseException as error:
        if processes.count > 1 and not is_shared(error):
            gather(processes, Failure(_portable(error)))
        raise


def is_shared(error: BaseException) -> bool:
    """Whether all processes know of this error."""
    return getattr(error, "hubmerge_common", False)


def mark_shared(error: BaseException) -> BaseException:
    """The error, from now on known to all processes."""
    error.hubmerge_common = True  # type: ignore[attr-defined]
    return error


def _portable(error: BaseException) -> BaseException:
    """The error as it can be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - pickled in the same line
    except Exception:
        return HubmergeError(f"{type(error).__name__}: {error}")
    return error


def shares(costs: Sequence[float], count: int) -> list[list[int]]:
    """Distribute pieces of work: the largest first, each to whoever has the least so far. Indices, ascending.

    >>> shares([5.0, 4.0, 3.0, 3.0, 1.0], 2)
    [[0, 3], [1, 2, 4]]
    """
    loads = [0.0] * count
    places: list[list[int]] = [[] for _ in range(count)]
    for index in sorted(range(len(costs)), key=lambda index: -costs[index]):
        least = loads.index(min(loads))
        places[least].append(index)
        # Even what costs nothing to compute has to be read and written.
        loads[least] += costs[index] + 1.0
    return [sorted(place) for place in places]


def do_share(
    tensors: Sequence[Piece],
    work: Callable[[Piece], Result],
    *,
    processes: Processes,
    cost: Callable[[Piece], float],
    stop: Path,
    workers: int | None = None,
    on_tensor: Callable[[Piece], None] | None = None,
) -> dict[int, Result]:
    """`work(tensor)` for this process's share of all tensors; index -> result. See `for_each_tensor`.

    The file `stop` appears when a process fails, so that the others do not finish what is in vain. It must not be
    there from before: see `stop_file`.
    """
    if processes.count == 1:
        return dict(enumerate(for_each_tensor(tensors, work, workers=workers, on_tensor=on_tensor)))
    own = shares([cost(tensor) for tensor in tensors], processes.count)[processes.rank]

    def unless_stopped(tensor: Piece) -> Result:
        if stop.exists():
            raise _StoppedError("another process of this run failed", hint="run the same command again to continue")
        return work(tensor)

    try:
        results = for_each_tensor(
            [tensors[index] for index in own],
            unless_stopped,
            workers=workers or max(1, available_cpus() // processes.on_this_machine),
            on_tensor=on_tensor,
        )
    except BaseException:
        with suppress(OSError):
            stop.touch()
        raise
    return dict(zip(own, results, strict=True))


def stop_file(folder: Path, processes: Processes) -> Path:
    """Where `do_share` leaves a mark when it fails at something for `folder`; no mark of an earlier run is there."""
    stop = folder.with_name(f".{folder.name}.stop")
    if processes.count > 1:
        if processes.rank == 0:
            stop.unlink(missing_ok=True)
        barrier(processes)
    return stop


def in_order(parts: Sequence[Mapping[int, Result]]) -> list[Result]:
    """What `do_share` gave in every process, in the order of the tensors."""
    whole = {index: result for part in parts for index, result in part.items()}
    return [whole[index] for index in sorted(whole)]


def tell_of_others(
    tensors: Sequence[Piece], done: Mapping[int, object], on_tensor: Callable[[Piece], None] | None
) -> None:
    """Call `on_tensor` for what the other processes did."""
    for index, tensor in enumerate(tensors if on_tensor is not None else ()):
        if on_tensor is not None and index not in done:
            on_tensor(tensor)


@dataclass(frozen=True)
class Shutdown:
    """The last message of the first process: the exit status of the run."""

    status: int
