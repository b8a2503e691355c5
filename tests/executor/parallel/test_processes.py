"""Several processes on one step: bytes equal to those of one process, and one error in all."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hubmerge.checkpoints import PlannedTensor, open_checkpoint
from hubmerge.cli.launch import launched_count, launched_rank
from hubmerge.errors import CheckpointError, MachineError
from hubmerge.executor import DEFAULT_CONTEXT, ExecutorContext, Merge, StepInput, merge_steps, write_merged
from hubmerge.executor.parallel.processes import (
    Processes,
    divide_work,
    gather,
    is_shared,
    run_share,
    stop_file,
)
from hubmerge.executor.parallel.tasks import run_on_all
from hubmerge.methods import METHODS, Opcm, method_named
from tests.executor.parallel.members import Exchange, Member, together
from tests.executor.streams import Stream, make_base, make_checkpoint, open_stream, save
from tests.executor.test_runs import digests, make_stream


class Constant:
    """Constant parameters for every tensor; unlike a lambda, an instance can be pickled."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __call__(self, _name: str) -> Any:
        return self.values


def merge_all(stream: Stream, folder: Path, method: str, context: ExecutorContext) -> dict[str, str]:
    found, previous = method_named(method), None
    for step, checkpoint in enumerate(stream.checkpoints, start=1):
        state_folder = folder / f"state{step}"
        state, _ = run_on_all(
            context,
            merge_steps,
            Merge(stream.base, found, stream.plan),
            [StepInput(checkpoint, Constant(found.Parameters()))],
            previous,
            state_folder,
            chain=f"step {step}",
        )
        merged = folder / f"merged{step}"
        merged.mkdir()
        run_on_all(context, write_merged, stream.base, state, stream.plan, merged, max_shard_bytes=9_000)
        previous = state
    return digests(folder)


def merge_with(stream: Stream, folder: Path, method: str, seen: list[str], processes: Processes) -> dict[str, str]:
    context = ExecutorContext(processes=processes, on_tensor=lambda tensor: seen.append(tensor.name))
    return merge_all(stream, folder, method, context)


@pytest.mark.parametrize("method", [method.name for method in METHODS])
def test_number_of_processes_changes_no_byte(tmp_path: Path, method: str) -> None:
    stream = make_stream(tmp_path / "models")
    (tmp_path / "alone").mkdir()
    alone = merge_all(stream, tmp_path / "alone", method, DEFAULT_CONTEXT)
    for count in (2, 3):
        folder = tmp_path / str(count)
        folder.mkdir()
        seen: list[str] = []
        result, ends = together(
            count,
            partial(merge_with, stream, folder, method, seen),
        )
        assert ends == [0] * (count - 1)
        assert result == alone
        assert len(seen) == 3 * (len(stream.plan.merged) + len(stream.plan.tensors))


@pytest.mark.parametrize("method", ["opcm", "weight_average"])
def test_processes_share_a_batch_of_steps(tmp_path: Path, method: str) -> None:
    stream, found = make_stream(tmp_path / "models"), method_named(method)
    merge_all(stream, tmp_path, method, DEFAULT_CONTEXT)
    inputs = [StepInput(checkpoint, Constant(found.Parameters())) for checkpoint in stream.checkpoints]
    (state, stats), ends = together(
        2,
        lambda processes: run_on_all(
            ExecutorContext(processes=processes),
            merge_steps,
            *(Merge(stream.base, found, stream.plan), inputs, None, tmp_path / "all"),
            chain="step 3",
        ),
    )
    assert ends == [0]
    assert (state.step, [one.step for one in stats]) == (3, [1, 2, 3])
    assert digests(tmp_path / "all") == digests(tmp_path / "state3")


def test_each_process_does_a_share(tmp_path: Path) -> None:
    stream = make_stream(tmp_path / "models")
    (tmp_path / "states").mkdir()
    by: dict[int, set[str]] = {0: set(), 1: set()}

    def share(processes: Processes) -> None:
        stop = stop_file(tmp_path / "states" / "a", processes)
        done = run_share(
            stream.plan.merged, lambda t: t.name, processes=processes, cost=lambda t: t.flops, stop=stop, workers=1
        )
        by[processes.rank] = set(done.values())

    exchange = Exchange(2)
    threads = [threading.Thread(target=share, args=(Member(exchange, rank),)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert by[0] | by[1] == {tensor.name for tensor in stream.plan.merged}
    assert by[0]
    assert by[1]
    assert not by[0] & by[1]


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_shares_are_even_and_complete(count: int) -> None:
    costs = np.random.default_rng(3).pareto(1.5, 30).tolist()
    divided = divide_work(costs, count)
    assert sorted(index for share in divided for index in share) == list(range(30))
    loads = [sum(costs[index] + 1.0 for index in share) for share in divided]
    # At most one item above the mean.
    assert max(loads) <= sum(loads) / count + max(costs) + 1.0


def test_value_that_is_not_finite_raises_one_error_in_all_processes(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    base = make_base(rng)
    values = [make_checkpoint(rng, base) for _ in range(2)]
    stream = open_stream(tmp_path / "models", base, values, dtype=torch.float32)
    # A tensor of the second process.
    own = {stream.plan.merged[index].name for index in divide_work([t.flops for t in stream.plan.merged], 2)[1]}
    name = min(own)
    values[1][name] = np.full_like(values[1][name], np.nan)
    save(tmp_path / "bad", values[1], torch.float32)
    bad = open_checkpoint(tmp_path / "bad", "bad")
    folder = tmp_path / "states"
    folder.mkdir()

    def run(processes: Processes) -> None:
        good, wrong = ([StepInput(each, Constant(Opcm.Parameters()))] for each in (stream.checkpoints[0], bad))
        merge, context = Merge(stream.base, Opcm(), stream.plan), ExecutorContext(processes=processes)
        state, _ = run_on_all(context, merge_steps, merge, good, None, folder / "1")
        run_on_all(context, merge_steps, merge, wrong, state, folder / "2")

    error, ends = together(2, run)
    assert isinstance(error, CheckpointError)
    assert name in error.message
    assert "bad" in error.message
    assert error.hint
    assert ends == [4]
    assert [path.name for path in sorted(folder.iterdir()) if not path.name.startswith(".")] == ["1"]
    again, ends = together(
        2,
        lambda processes: run_on_all(
            ExecutorContext(processes=processes),
            merge_steps,
            Merge(stream.base, Opcm(), stream.plan),
            [StepInput(stream.checkpoints[0], Constant(Opcm.Parameters()))],
            *(None, folder / "2"),
        ),
    )
    assert (again[0].step, ends) == (1, [0])


class UnsendableError(Exception):
    def __init__(self, _one: int, _two: int) -> None:
        super().__init__("this error cannot be unpickled")


def fail_in(rank: int, at: str, *, context: ExecutorContext) -> None:
    processes = context.processes
    if processes.rank == rank and at == "before":
        raise UnsendableError(1, 2)
    gather(processes, None)
    if processes.rank == rank and at == "after":
        raise MachineError("the disk failed", hint="replace it")


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("at", ["before", "after"])
def test_error_of_one_process_is_raised_in_all(rank: int, at: str) -> None:
    errors: list[BaseException] = []

    def run(processes: Processes) -> None:
        try:
            run_on_all(ExecutorContext(processes=processes), fail_in, rank, at)
        except Exception as error:
            errors.append(error)
            raise

    error, ends = together(3, run)
    assert error is errors[0]
    assert is_shared(error)
    assert ends == [4, 4]
    assert ("disk failed" if at == "after" else "this error cannot be unpickled") in str(error)


def test_task_that_cannot_be_pickled_is_an_error() -> None:
    error, ends = together(2, lambda processes: run_on_all(ExecutorContext(processes=processes), lambda **_: None))
    assert "lambda" in str(error)
    assert ends == [4]


def test_failed_process_stops_the_others(tmp_path: Path) -> None:
    tensors = [PlannedTensor(f"{n}", (4, 4), torch.float32, torch.float32, "merge-other", "") for n in range(100)]
    begun: list[str] = []
    started = threading.Event()

    def work(processes: Processes) -> None:
        stop = stop_file(tmp_path / "a", processes)

        def one(tensor: PlannedTensor) -> None:
            if processes.rank == 1:
                assert started.wait(60)
                raise MachineError("broken")
            begun.append(tensor.name)
            started.set()
            failed.wait(60)

        failed = threading.Event()
        if processes.rank == 0:
            threading.Thread(target=_set_when_exists, args=(stop, failed), daemon=True).start()
        run_share(tensors, one, processes=processes, cost=lambda _: 1.0, stop=stop, workers=2)

    errors: list[Exception] = []

    def member(rank: int) -> None:
        try:
            work(Member(exchange, rank))
        except MachineError as error:
            errors.append(error)

    exchange = Exchange(2)
    threads = [threading.Thread(target=member, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(errors) == 2
    assert len(begun) in {1, 2}, "the first process must finish the tensors in work and start no other"


def _set_when_exists(path: Path, event: threading.Event) -> None:
    while not path.exists():
        threading.Event().wait(0.005)
    event.set()


def test_launched_count_and_rank() -> None:
    assert launched_count({}) == 1
    assert launched_count({"WORLD_SIZE": "1"}) == 1
    assert launched_count({"WORLD_SIZE": "8", "RANK": "3"}) == 8
    assert launched_count({"OMPI_COMM_WORLD_SIZE": "2"}) == 2
    assert launched_count({"PMI_SIZE": ""}) == 1
    assert launched_rank({"RANK": "3"}) == 3
    assert launched_rank({"OMPI_COMM_WORLD_RANK": "1"}) == 1
    assert launched_rank({"RANK": "0"}) == launched_rank({}) == 0
