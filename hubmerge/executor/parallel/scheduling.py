"""Tensors on several threads: the most expensive first, within a memory budget."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Protocol, TypeVar

import torch

from hubmerge.executor.parallel.allocation import return_freed_memory, trim_free_memory
from hubmerge.executor.parallel.threads import set_kernel_threads
from hubmerge.support import interrupts
from hubmerge.support.progress import show_item


class WorkItem(Protocol):
    """A tensor, or a batch of tensors that are processed together."""

    @property
    def elements(self) -> int:
        """Number of elements."""
        ...

    @property
    def flops(self) -> float:
        """Estimated floating-point operations."""
        ...


Item = TypeVar("Item", bound=WorkItem)
Result = TypeVar("Result")

SPARE_ELEMENTS = 16 << 20
"""Most elements in work beside the largest tensor: 128 MiB for each float64 copy."""

ELEMENTS_BETWEEN_TRIMS = 1 << 20
"""Number of processed elements after which gaps between blocks of memory are returned to the system.

With a smaller number the system zeroes more memory than the arithmetic uses; with a larger one the gaps add up.
"""


def for_each_tensor(
    tensors: Sequence[Item],
    work: Callable[[Item], Result],
    *,
    workers: int | None = None,
    on_tensor: Callable[[Item], None] | None = None,
) -> list[Result]:
    """Call `work(tensor)` for all tensors on several threads, and return the results in the order of the tensors.

    See `iterate_completed` for threads, memory and errors. `on_tensor` is called with each tensor that is done.
    """
    results: dict[int, Result] = {}
    for index, result in iterate_completed(tensors, work, workers=workers):
        results[index] = result
        if on_tensor is not None:
            on_tensor(tensors[index])
    return [results[index] for index in range(len(tensors))]


def iterate_completed(
    tensors: Sequence[Item], work: Callable[[Item], Result], *, workers: int | None = None
) -> Iterator[tuple[int, Result]]:
    """Call `work(tensor)` for all tensors on several threads, and yield each index and result as it is done.

    The kernels of each call use one thread, so results do not depend on `workers`. The tensors in work have together
    at most `SPARE_ELEMENTS` more elements than the largest tensor. After the first error, or KeyboardInterrupt, no
    other tensor is started.

    Args:
        tensors: tensors or batches of tensors.
        work: a function that several threads can call at the same time.
        workers: number of threads; None for one per CPU.
    """
    waiting = sorted(range(len(tensors)), key=lambda index: -tensors[index].flops)
    budget = max((tensor.elements for tensor in tensors), default=0) + SPARE_ELEMENTS
    running: dict[Future[Result], int] = {}
    count = workers or available_cpus()
    processed = 0
    return_freed_memory()
    with _thread_count_restored(), _worker_pool(count) as pool:
        while waiting or running:
            interrupts.check()
            room = budget - sum(tensors[index].elements for index in running.values())
            while len(running) < count and (fitting := _first_that_fits(tensors, waiting, room)) is not None:
                waiting.remove(fitting)
                show_item(_name(tensors[fitting]))
                running[pool.submit(work, tensors[fitting])] = fitting
                room -= tensors[fitting].elements
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            while done:
                future = done.pop()
                index = running.pop(future)
                processed += tensors[index].elements
                yield index, future.result()
            if processed >= ELEMENTS_BETWEEN_TRIMS:
                trim_free_memory()
                processed = 0


def _name(item: WorkItem) -> str:
    """Return the name of a tensor, or of the first tensor of a batch."""
    first = next(iter(getattr(item, "tensors", ())), item)
    return str(getattr(first, "name", ""))


def available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _worker_pool(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "hubmerge", initializer=set_kernel_threads, initargs=(1,))


def _first_that_fits(tensors: Sequence[WorkItem], waiting: Sequence[int], room: int) -> int | None:
    return next((index for index in waiting if tensors[index].elements <= room), None)


@contextlib.contextmanager
def _thread_count_restored() -> Iterator[None]:
    """Restore torch's thread count for the process, which the workers change when they set their own."""
    threads = torch.get_num_threads()
    # Where MKL has one count for all threads, the workers use this one too.
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
