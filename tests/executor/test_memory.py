"""Peak memory, measured in fresh processes: neither more models nor more layers raise it."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pytest

from benchmarks import memory
from benchmarks.memory import planned, write_models
from hubmerge.methods import method_named
from hubmerge.plan.budget import PROCESS_BYTES, merging_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")

SLACK = 1 << 25
"""Stacks of threads, buffers of kernels, Python's own objects, free blocks that are kept: a constant."""


@cache
def measure(method: str, models: int, layers: int, workers: int) -> dict[str, int]:
    return memory.measure(method, models, layers, workers)


@pytest.mark.parametrize("method", ["opcm", pytest.param("ties", marks=pytest.mark.slow)])
def test_peak_is_a_few_copies_of_the_largest_tensor(method: str) -> None:
    small = measure(method, models=2, layers=2, workers=1)
    large = measure(method, models=8, layers=12, workers=1)
    largest = large["largest"]
    assert large["model"] == 6 * small["model"]
    # A state of 12 such layers kept in memory would alone be 12 copies; blocks that are kept may be a few.
    assert large["growth"] <= small["growth"] + 4 * largest
    assert large["growth"] <= 9 * largest + SLACK


def test_each_worker_adds_no_more_than_the_tensor_it_works_on() -> None:
    alone = measure("opcm", models=2, layers=4, workers=1)
    together = measure("opcm", models=2, layers=4, workers=3)
    assert together["growth"] <= 3 * alone["growth"] + SLACK


@pytest.mark.parametrize(
    ("method", "workers"),
    [
        ("opcm", 1),
        ("ties", 1),
        ("magmax", 2),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("opcm", 2), ("ties", 2), ("magmax", 1))),
    ],
)
def test_the_plan_asks_for_no_less(tmp_path: Path, method: str, workers: int) -> None:
    write_models(tmp_path, layers=4)
    _, _, plan = planned(tmp_path, layers=4)
    measured = measure(method, models=2, layers=4, workers=workers)
    estimate = merging_bytes(plan, method_named(method), workers)
    in_pieces = merging_bytes(plan, method_named(method), workers, in_pieces=True)
    assert measured["growth"] <= in_pieces <= estimate
    assert measured["growth"] <= estimate <= 3 * measured["growth"] + SLACK
    assert measured["before"] <= PROCESS_BYTES
