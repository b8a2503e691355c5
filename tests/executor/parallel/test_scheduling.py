"""Scheduling of tensors on threads: order, memory, and the first error."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from hubmerge.checkpoints import PlannedTensor
from hubmerge.executor.parallel.scheduling import SPARE_ELEMENTS, for_each_tensor


def planned(*elements: int) -> list[PlannedTensor]:
    return [
        PlannedTensor(str(index), (count,), torch.float32, torch.float32, "merge-other", "")
        for index, count in enumerate(elements)
    ]


def test_scheduling_keeps_the_order_of_results_and_begins_with_the_largest() -> None:
    seen: list[int] = []

    def work(tensor: PlannedTensor) -> int:
        seen.append(tensor.elements)
        return tensor.elements

    done: list[str] = []
    tensors = planned(3, 9, 1, 7)
    assert for_each_tensor(tensors, work, workers=1, on_tensor=lambda t: done.append(t.name)) == [3, 9, 1, 7]
    assert seen == [9, 7, 3, 1]
    assert done == ["1", "3", "0", "2"]
    assert for_each_tensor([], work) == []


def peak_of(tensors: list[PlannedTensor], expected: int) -> int:
    """Return how many elements are worked on at most, where every tensor waits until that many have been."""
    lock, reached, held, peak = threading.Lock(), threading.Event(), 0, 0

    def work(tensor: PlannedTensor) -> None:
        nonlocal held, peak
        with lock:
            held += tensor.elements
            peak = max(peak, held)
        if peak >= expected:
            reached.set()
        reached.wait(60)
        time.sleep(0.01)
        with lock:
            held -= tensor.elements

    for_each_tensor(tensors, work, workers=8)
    return peak


def test_scheduling_bounds_what_is_in_memory() -> None:
    large = 3 * SPARE_ELEMENTS
    peak = peak_of(planned(large, *[SPARE_ELEMENTS // 2 + 1] * 10, 5, large, 7), large + 1)
    assert large < peak <= large + SPARE_ELEMENTS
    assert peak_of(planned(*[SPARE_ELEMENTS] * 6), 2 * SPARE_ELEMENTS) == 2 * SPARE_ELEMENTS


def test_the_first_error_ends_the_work() -> None:
    begun: list[str] = []

    def work(tensor: PlannedTensor) -> None:
        begun.append(tensor.name)
        raise ZeroDivisionError(tensor.name)

    with pytest.raises(ZeroDivisionError):
        for_each_tensor(planned(*range(1, 50)), work, workers=2)
    assert len(begun) <= 4
