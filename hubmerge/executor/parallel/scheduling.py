"""Many tensors on a few threads: the largest first, and never more in memory than a budget allows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Protocol, TypeVar

import torch

from hubmerge.executor.parallel.allocation import return_freed_memory, return_gaps
from hubmerge.executor.parallel.threads import compute_with


class Workpiece(Protocol):
    """A tensor, or several that are worked on together."""

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        ...

    @property
    def flops(self) -> float:
        """Rough cost."""
        ...


Piece = TypeVar("Piece", bound=Workpiece)
Result = TypeVar("Result")

SPARE_ELEMENTS = 16 << 20
"""So many elements may be worked on besides the largest tensor: 128 MiB for each float64 copy of them."""

ELEMENTS_BETWEEN_TRIMS = 1 << 20
"""Gaps between blocks of memory are given back after so many elements: more often, and the system zeroes more than is
worked on; more seldom, and they add up."""


def for_each_tensor(
    tensors: Sequence[Piece],
    work: Callable[[Piece], Result],
    *,
    workers: int | None = None,
    on_tensor: Callable[[Piece], None] | None = None,
) -> list[Result]:
    """`work(tensor)` for all tensors on some threads; results in the order given. See `as_done`."""
    results: dict[int, Result] = {}
    for index, result in as_done(tensors, work, workers=workers):
        results[index] = result
        if on_tensor is not None:
            on_tensor(tensors[index])
    return [results[index] for index in range(len(tensors))]


def as_done(
    tensors: Sequence[Piece], work: Callable[[Piece], Result], *, workers: int | None = None
) -> Iterator[tuple[int, Result]]:
    """`work(tensor)` for all tensors on `workers` threads (one per CPU if None); index and result as each is done.

    Each thread computes alone, whatever their number, so the results do not depend on it. Tensors that are
    worked on at one time have together no more elements than the largest of all and SPARE_ELEMENTS. The first
    error ends the work, after the threads have finished what they had begun; so does KeyboardInterrupt.
    """
    budget = max((tensor.elements for tensor in tensors), default=0) + SPARE_ELEMENTS
    waiting = sorted(range(len(tensors)), key=lambda index: -tensors[index].flops)
    running: dict[Future[Result], int] = {}
    count = workers or available_cpus()
    worked = 0
    return_freed_memory()
    with (
        _number_of_threads_restored(),
        ThreadPoolExecutor(count, "hubmerge", initializer=compute_with, initargs=(1,)) as pool,
    ):
        while waiting or running:
            room = budget - sum(tensors[index].elements for index in running.values())
            while len(running) < count and (fitting := _first_that_fits(tensors, waiting, room)) is not None:
                waiting.remove(fitting)
                running[pool.submit(work, tensors[fitting])] = fitting
                room -= tensors[fitting].elements
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            while done:
                future = done.pop()
                index = running.pop(future)
                worked += tensors[index].elements
                yield index, future.result()
            if worked >= ELEMENTS_BETWEEN_TRIMS:
                return_gaps()
                worked = 0


def available_cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _first_that_fits(tensors: Sequence[Workpiece], waiting: Sequence[int], room: int) -> int | None:
    return next((index for index in waiting if tensors[index].elements <= room), None)


@contextlib.contextmanager
def _number_of_threads_restored() -> Iterator[None]:
    """What the workers choose for themselves changes the number of the process, where MKL has but one also theirs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
