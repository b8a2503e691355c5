"""The last digits of what a thread computes depend on how many threads its kernels use, and on no other thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from hubmerge.checkpoints import PlannedTensor
from hubmerge.executor.parallel.scheduling import for_each_tensor
from hubmerge.executor.parallel.threads import set_kernel_threads

SIZES = (300, 512)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def digits(size: int) -> bytes:
    """Return a sum, a product and eigenvectors of the same matrix each time."""
    matrix = torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
    product = matrix @ matrix.T
    values = (matrix.sum().reshape(1), torch.linalg.vector_norm(matrix).reshape(1), product.reshape(-1))
    return torch.cat([*values, torch.linalg.eigh(product)[1].reshape(-1)]).numpy().tobytes()


def in_a_thread(function: Callable[..., object], *arguments: object) -> object:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def of_all(before: Callable[[], object] = lambda: None) -> list[bytes]:
    def work(tensor: PlannedTensor) -> bytes:
        before()
        return digits(tensor.elements)

    tensors = [PlannedTensor(str(n), (n,), torch.float64, torch.float64, "merge-other", "") for n in SIZES]
    return for_each_tensor(tensors, work, workers=2)


def test_workers_compute_the_same_whatever_other_threads_choose() -> None:
    alone = of_all()
    assert of_all(lambda: in_a_thread(torch.set_num_threads, 4)) == alone
    assert of_all(lambda: in_a_thread(set_kernel_threads, 4)) == alone
    assert of_all(lambda: in_a_thread(of_all)) == alone


@pytest.mark.parametrize("threads", [1, 2])
def test_a_thread_that_scores_computes_the_same_while_others_merge(threads: int) -> None:
    def score(other: Callable[[], object]) -> list[bytes]:
        set_kernel_threads(threads)
        found = []
        for size in SIZES:
            other()
            found.append(digits(size))
        return found

    alone = in_a_thread(score, lambda: None)
    assert in_a_thread(score, of_all) == alone
    assert in_a_thread(score, lambda: in_a_thread(of_all)) == alone
    assert in_a_thread(score, lambda: in_a_thread(torch.set_num_threads, 3 - threads)) == alone


def test_the_number_of_the_process_is_as_before() -> None:
    for threads in (1, 2):
        torch.set_num_threads(threads)
        of_all()
        assert torch.get_num_threads() == threads
