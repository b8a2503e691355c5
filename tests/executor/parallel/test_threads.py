"""Thread counts of torch's kernels: results of a thread do not depend on the counts that other threads set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch

from hubmerge.checkpoints import PlannedTensor
from hubmerge.executor.parallel.scheduling import for_each_tensor
from hubmerge.executor.parallel.threads import set_kernel_threads
from hubmerge.support import interrupts

SIZES = (300, 512)


@pytest.fixture(autouse=True)
def thread_count_restored() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def digits(size: int) -> bytes:
    """Return the bytes of a sum, a norm, a product and eigenvectors of a fixed random matrix."""
    matrix = torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
    product = matrix @ matrix.T
    values = (matrix.sum().reshape(1), torch.linalg.vector_norm(matrix).reshape(1), product.reshape(-1))
    return torch.cat([*values, torch.linalg.eigh(product)[1].reshape(-1)]).numpy().tobytes()


def in_thread(function: Callable[..., object], *arguments: object) -> object:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def all_digits(before: Callable[[], object] = lambda: None) -> list[bytes]:
    def work(tensor: PlannedTensor) -> bytes:
        before()
        return digits(tensor.elements)

    tensors = [PlannedTensor(str(n), (n,), torch.float64, torch.float64, "merge-other", "") for n in SIZES]
    return for_each_tensor(tensors, work, workers=2)


def test_workers_ignore_thread_counts_of_other_threads() -> None:
    alone = all_digits()
    assert all_digits(lambda: in_thread(torch.set_num_threads, 4)) == alone
    assert all_digits(lambda: in_thread(set_kernel_threads, 4)) == alone
    assert all_digits(lambda: in_thread(all_digits)) == alone


@pytest.mark.parametrize("threads", [1, 2])
def test_scoring_thread_ignores_thread_counts_of_merging_threads(threads: int) -> None:
    def score(other: Callable[[], object]) -> list[bytes]:
        set_kernel_threads(threads)
        found = []
        for size in SIZES:
            other()
            found.append(digits(size))
        return found

    alone = in_thread(score, lambda: None)
    assert in_thread(score, all_digits) == alone
    assert in_thread(score, lambda: in_thread(all_digits)) == alone
    assert in_thread(score, lambda: in_thread(torch.set_num_threads, 3 - threads)) == alone


def test_thread_count_of_process_is_restored() -> None:
    for threads in (1, 2):
        torch.set_num_threads(threads)
        all_digits()
        assert torch.get_num_threads() == threads


@dataclass(frozen=True)
class Work:
    """Work of one size."""

    elements: int
    flops: float = 1.0


@pytest.mark.parametrize("workers", [1, 2])
def test_no_tensor_is_begun_after_a_stop(workers: int) -> None:
    begun: list[int] = []

    def work(tensor: Work) -> None:
        begun.append(tensor.elements)
        interrupts.request()

    with interrupts.handled(), pytest.raises(KeyboardInterrupt):
        for_each_tensor([Work(size) for size in range(100)], work, workers=workers)
    assert len(begun) <= workers
