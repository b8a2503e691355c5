"""Results do not depend on threads, shards, interruptions, or the order of the tensors."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hubmerge.checkpoints import PlannedTensor, align, open_checkpoint
from hubmerge.checkpoints.formats import shards
from hubmerge.checkpoints.matching.alignment import AlignedCheckpoint
from hubmerge.errors import CheckpointError
from hubmerge.executor import (
    ExecutorContext,
    Merge,
    StepInput,
    StepStats,
    merge_steps,
    needs_single_steps,
    pick_device,
    write_merged,
)
from hubmerge.executor.reading import ELEMENTS_AT_ONCE
from hubmerge.executor.state import MergeState, find_state, load_state
from hubmerge.methods import METHODS, method_named
from tests.checks import every
from tests.executor.streams import Stream, constant, loaded, make_base, make_checkpoint, merged_values, open_stream


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    return make_stream(tmp_path / "models")


def make_stream(folder: Path, count: int = 3) -> Stream:
    rng = np.random.default_rng(21)
    base = make_base(rng)
    values = [make_checkpoint(rng, base) for _ in range(count)]
    ids = torch.arange(9, dtype=torch.int64).reshape(1, 9)
    return open_stream(folder, base, values, dtype=torch.float32, position_ids=ids)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def states_and_models(stream: Stream, folder: Path, method: str, workers: int) -> dict[str, str]:
    for state, _ in stream.merge(folder, method, workers=workers):
        write_merged(
            stream.base, state, stream.plan, folder / f"merged{state.step}", context=ExecutorContext(workers=workers)
        )
    return digests(folder)


@pytest.mark.parametrize("method", [method.name for method in METHODS])
def test_the_number_of_threads_changes_no_byte(tmp_path: Path, stream: Stream, method: str) -> None:
    alone = states_and_models(stream, tmp_path / "alone", method, 1)
    assert len(alone) == 3 * 4
    for workers in (2, 5):
        assert states_and_models(stream, tmp_path / str(workers), method, workers) == alone


@pytest.mark.parametrize("method", [method.name for method in METHODS])
@pytest.mark.parametrize("lengths", [(3,), (2, 1), (1, 2)])
def test_how_many_steps_are_done_at_a_time_changes_no_byte(
    tmp_path: Path, stream: Stream, method: str, lengths: tuple[int, ...]
) -> None:
    one_by_one = stream.merge(tmp_path / "one", method)
    found = method_named(method)
    state: MergeState | None = None
    told: list[StepStats] = []
    incoming = [StepInput(checkpoint, constant(found.Parameters())) for checkpoint in stream.checkpoints]
    if needs_single_steps(Merge(stream.base, found, stream.plan), incoming[0]):
        with pytest.raises(ValueError, match=f"{method} takes one step at a time"):
            merge_steps(Merge(stream.base, found, stream.plan), incoming, None, tmp_path / "state")
        return
    for length in lengths:
        some, incoming = incoming[:length], incoming[length:]
        chain = f"up to {some[-1].checkpoint.label}"
        folder = tmp_path / "several" / some[-1].checkpoint.label
        state, figures = merge_steps(Merge(stream.base, found, stream.plan), some, state, folder, chain=chain)
        told += figures
        assert digests(folder) == digests(tmp_path / "one" / folder.name)
    assert told == [figures for _, figures in one_by_one]


@pytest.mark.parametrize("method", [m.name for m in METHODS if m.elementwise and not m.surveys_model])
@pytest.mark.parametrize("pickled", [(), (0,), (1, 2), (0, 2, 4), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("whole", [False, True])
def test_steps_of_files_that_are_read_whole_and_in_pieces(
    tmp_path: Path, method: str, pickled: tuple[int, ...], *, whole: bool
) -> None:
    rng = np.random.default_rng(23)
    base = {**make_base(rng), "nothing": np.zeros((0, 3)), "several": rng.standard_normal((3, ELEMENTS_AT_ONCE + 5))}
    values = [{n: value + 1e-2 * rng.standard_normal(value.shape) for n, value in base.items()} for _ in range(5)]
    stream = open_stream(tmp_path / "models", base, values)
    one_by_one = stream.merge(tmp_path / "one", method)
    for index in pickled:
        folder = tmp_path / "models" / stream.checkpoints[index].label
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    opened = [align(stream.base, open_checkpoint(tmp_path / "models" / c.label, c.label)) for c in stream.checkpoints]
    assert every(checkpoint.can_read_pieces("several") for checkpoint in opened)
    if whole:
        opened = [_ReadWhole(one) if index in pickled else one for index, one in enumerate(opened)]
    found = method_named(method)
    incoming = [StepInput(checkpoint, constant(found.Parameters())) for checkpoint in opened]
    for first in (0, 1):
        previous, rest = (one_by_one[first - 1][0] if first else None), incoming[first:]
        folder, chain = tmp_path / f"from-{first}", f"up to {opened[-1].label}"
        _, told = merge_steps(Merge(stream.base, found, stream.plan), rest, previous, folder, chain=chain)
        assert list(told) == [figures for _, figures in one_by_one[first:]]
        assert digests(folder) == digests(tmp_path / "one" / opened[-1].label)


class _ReadWhole(AlignedCheckpoint):
    """An aligned checkpoint whose tensors are read whole, as those with adapters are."""

    def __init__(self, aligned: AlignedCheckpoint) -> None:
        self.__dict__.update(vars(aligned))

    def read_pieces(self, name: str, elements: int) -> Iterator[torch.Tensor]:
        return iter(self.read(name).reshape(-1).split(elements))

    def can_read_pieces(self, name: str) -> bool:
        return False


def test_all_steps_done_at_a_time_have_one_form(tmp_path: Path, stream: Stream) -> None:
    ties = method_named("ties")
    first, second = ties.Parameters.model_validate({"weight": 1.0}), ties.Parameters()
    incoming = [StepInput(stream.checkpoints[0], constant(first)), StepInput(stream.checkpoints[1], constant(second))]
    with pytest.raises(CheckpointError, match="step 2 and the step before it select two variants of ties") as caught:
        merge_steps(Merge(stream.base, ties, stream.plan), incoming, None, tmp_path / "state")
    assert "give every entry a weight" in str(caught.value.hint)
    assert not (tmp_path / "state").exists()


def test_figures_do_not_depend_on_threads_and_go_to_json(tmp_path: Path, stream: Stream) -> None:
    alone = [figures for _, figures in stream.merge(tmp_path / "alone", workers=1)]
    together = [figures for _, figures in stream.merge(tmp_path / "together", workers=4)]
    assert together == alone
    text = json.dumps([dataclasses.asdict(figures) for figures in alone], allow_nan=False)
    assert json.loads(text)[2]["tensors"][0]["name"] == stream.plan.merged[0].name


def test_torch_gets_its_threads_back(tmp_path: Path, stream: Stream) -> None:
    before = torch.get_num_threads()
    stream.merge(tmp_path / "states", steps=1, workers=2)
    assert torch.get_num_threads() == before


def test_tensors_without_values_and_of_several_pieces(tmp_path: Path) -> None:
    rng = np.random.default_rng(22)
    shapes = {"nothing": (0, 4), "several": (130, 2 * ELEMENTS_AT_ONCE // 130 + 7), "exact": (3, ELEMENTS_AT_ONCE)}
    base = {**make_base(rng), **{name: rng.standard_normal(shape) for name, shape in shapes.items()}}
    values = [{name: value + 1e-2 * rng.standard_normal(value.shape) for name, value in base.items()} for _ in range(2)]
    stream = open_stream(tmp_path / "models", base, values)
    *_, (state, _) = stream.merge(tmp_path / "states", "weight_average")
    merged = merged_values(stream, state, tmp_path / "merged")
    for name in shapes:
        np.testing.assert_allclose(merged[name], (values[0][name] + values[1][name]) / 2, rtol=0, atol=1e-14)
        assert merged[name].shape == base[name].shape


@pytest.mark.parametrize("limit", [100, 5_000, 20_000])
def test_shards_change_no_value_and_keep_untouched_tensors_apart(
    tmp_path: Path, stream: Stream, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(shards, "KEPT_SHARD_BYTES", 1)
    (state, _) = stream.merge(tmp_path / "states")[-1]
    whole = merged_values(stream, state, tmp_path / "whole")
    parts = merged_values(stream, state, tmp_path / "parts", max_shard_bytes=limit)
    assert parts.keys() == whole.keys()
    assert every(np.array_equal(parts[name], whole[name]) for name in whole)
    index = json.loads((tmp_path / "parts" / "model.safetensors.index.json").read_text())["weight_map"]
    kept = index["position_ids"]
    assert [name for name, file in index.items() if file == kept] == ["position_ids"]
    (first, _) = stream.merge(tmp_path / "again", steps=1)[-1]
    write_merged(stream.base, first, stream.plan, tmp_path / "first", max_shard_bytes=limit)
    assert digests(tmp_path / "first")[kept] == digests(tmp_path / "parts")[kept]


def test_resuming_from_a_saved_state_gives_the_same_bytes(tmp_path: Path, stream: Stream) -> None:
    stream.merge(tmp_path / "through")
    [(state, _), _] = stream.merge(tmp_path / "resumed", steps=2)
    assert state.step == 1
    reopened = load_state(tmp_path / "resumed" / "c2")
    reopened.verify()
    make_stream(tmp_path / "elsewhere").merge(tmp_path / "resumed", previous=reopened)
    assert digests(tmp_path / "resumed") == digests(tmp_path / "through")


def test_an_error_midway_leaves_nothing_behind(tmp_path: Path, stream: Stream) -> None:
    def fail(tensor: PlannedTensor) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream.merge(tmp_path / "states", on_tensor=fail)
    assert digests(tmp_path / "states") == {}
    assert list((tmp_path / "states").iterdir()) == []
    stream.merge(tmp_path / "states", steps=1)
    assert load_state(tmp_path / "states" / "c1").step == 1


def test_an_existing_state_is_replaced_as_a_whole(tmp_path: Path, stream: Stream) -> None:
    stream.merge(tmp_path / "states", "magmax", steps=1)
    stream.merge(tmp_path / "states", "opcm", steps=1)
    assert load_state(tmp_path / "states" / "c1").manifest.method == "opcm"
    assert [path.name for path in (tmp_path / "states").iterdir()] == ["c1"]


KILLED = """
import os, sys, time
from pathlib import Path
from tests.executor.test_runs import make_stream

def slowly(tensor):
    print(tensor.name, flush=True)
    time.sleep(0.05)

make_stream(Path(sys.argv[1])).merge(Path(sys.argv[2]), workers=2, on_tensor=slowly)
"""


def test_a_killed_run_continues_to_the_same_bytes(tmp_path: Path) -> None:
    make_stream(tmp_path / "models").merge(tmp_path / "through")
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "copy"), str(tmp_path / "killed")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        merged = len(make_stream(tmp_path / "counted").plan.merged)
        for _ in range(merged + 3):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    stream = make_stream(tmp_path / "again")
    state = find_state(tmp_path / "killed" / "c1")
    assert state is not None
    assert find_state(tmp_path / "killed" / "c2") is None
    assert (tmp_path / "killed" / ".c2.partial").is_dir()
    stream.merge(tmp_path / "killed", previous=state)
    assert digests(tmp_path / "killed") == digests(tmp_path / "through")


def test_the_device_is_accelerates(tmp_path: Path, stream: Stream) -> None:
    from accelerate import PartialState

    device = pick_device()
    assert device.type == PartialState().device.type or PartialState().device.type in {"mps", "xla"}
    (state, _) = stream.merge(tmp_path / "picked", device=device)[-1]
    (expected, _) = stream.merge(tmp_path / "cpu")[-1]
    if device.type == "cpu":
        assert digests(tmp_path / "picked") == digests(tmp_path / "cpu")
    for name in expected.manifest.tensors:
        assert torch.allclose(state.read(name), expected.read(name), rtol=0.0, atol=1e-10)


def on_each_device() -> list[str]:
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", on_each_device())
@pytest.mark.parametrize("method", [method.name for method in METHODS])
def test_every_method_on_every_device(tmp_path: Path, stream: Stream, method: str, device: str) -> None:
    def values(state: MergeState) -> list[torch.Tensor]:
        return [state.read(name) for name in state.manifest.tensors]

    there = values(stream.merge(tmp_path / device, method, device=torch.device(device))[-1][0])
    here = values(stream.merge(tmp_path / "here", method)[-1][0])
    length: Callable[[list[torch.Tensor]], float] = lambda tensors: sum(float(t.norm()) ** 2 for t in tensors) ** 0.5  # noqa: E731
    assert length([a - b for a, b in zip(there, here, strict=True)]) <= 1e-10 * length(here)


def test_read_back_as_transformers_would(tmp_path: Path, stream: Stream) -> None:
    (state, _) = stream.merge(tmp_path / "states")[-1]
    values = merged_values(stream, state, tmp_path / "merged")
    assert values.keys() == stream.base.tensors.keys()
    assert np.array_equal(values["position_ids"], np.arange(9).reshape(1, 9))
    assert loaded(tmp_path / "merged").keys() == values.keys()
