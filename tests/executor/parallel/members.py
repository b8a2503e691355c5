"""Threads in place of the processes of a run."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any

from hubmerge.executor.parallel.context import CPU
from hubmerge.executor.parallel.processes import Processes, Shutdown
from hubmerge.executor.parallel.tasks import worker_loop


class Exchange:
    """Exchange between threads that stand for processes; values are pickled, as between processes."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.values: list[bytes] = [b""] * count
        self.barrier = threading.Barrier(count)


class Member:
    """Implementation of `Processes` by one thread."""

    def __init__(self, exchange: Exchange, rank: int) -> None:
        self.rank = rank
        self.count = self.on_this_machine = exchange.count
        self.task_lock = threading.Lock()
        self._exchange = exchange

    def exchange(self, value: Any) -> list[Any]:
        self._exchange.values[self.rank] = pickle.dumps(value)
        self._exchange.barrier.wait(60)
        found = [pickle.loads(value) for value in self._exchange.values]
        self._exchange.barrier.wait(60)
        return found


def together(count: int, first: Callable[[Processes], Any]) -> tuple[Any, list[Any]]:
    """Run `first` as rank 0 while the others run `worker_loop`.

    Returns:
        What `first` returns or raises, and a list of what `worker_loop` returns or raises in the others.
    """
    exchange = Exchange(count)
    ends: list[Any] = [None] * count

    def other(rank: int) -> None:
        try:
            ends[rank] = worker_loop(Member(exchange, rank), CPU)
        except Exception as error:
            ends[rank] = error

    threads = [threading.Thread(target=other, args=(rank,), daemon=True) for rank in range(1, count)]
    for thread in threads:
        thread.start()
    member = Member(exchange, 0)
    try:
        result = first(member)
    except Exception as error:
        result = error
    member.exchange(Shutdown(4 if isinstance(result, Exception) else 0))
    for thread in threads:
        thread.join(60)
    return result, ends[1:]
