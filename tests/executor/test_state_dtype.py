"""States in float32: rounded after every step, whether a state is written then or not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hubmerge.errors import CheckpointError
from hubmerge.executor import Merge, StepInput, StepStats, merge_steps, needs_single_steps
from hubmerge.executor.state import MergeState, State, load_state
from hubmerge.methods import METHODS, method_named
from tests.executor.streams import Stream, constant
from tests.executor.test_runs import digests, make_stream


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    return make_stream(tmp_path / "models")


def merged(
    stream: Stream, name: str, folder: Path, lengths: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> tuple[MergeState, list[StepStats]]:
    """Merge the checkpoints in batches of these lengths, and return the last state and all statistics."""
    method = method_named(name)
    merge = Merge(stream.base, method, stream.plan, dtype)
    incoming = [StepInput(checkpoint, constant(method.Parameters())) for checkpoint in stream.checkpoints]
    state: MergeState | None = None
    stats: list[StepStats] = []
    for number, length in enumerate(lengths):
        some, incoming = incoming[:length], incoming[length:]
        state, found = merge_steps(merge, some, state, folder / str(number), chain=f"until {len(incoming)}")
        stats += found
    assert state is not None
    return state, stats


@pytest.mark.parametrize("name", [method.name for method in METHODS])
def test_batches_and_interruptions_change_no_byte(tmp_path: Path, stream: Stream, name: str) -> None:
    one_by_one, stats = merged(stream, name, tmp_path / "one", (1, 1, 1))
    method = method_named(name)
    step_input = StepInput(stream.checkpoints[0], constant(method.Parameters()))
    if not needs_single_steps(Merge(stream.base, method, stream.plan), step_input):
        together, same = merged(stream, name, tmp_path / "together", (3,))
        assert digests(together.folder) == digests(one_by_one.folder)
        assert same == stats
    in_memory: State | None = None
    for checkpoint in stream.checkpoints:
        merge = Merge(stream.base, method, stream.plan, torch.float32)
        one = StepInput(checkpoint, constant(method.Parameters()))
        in_memory, _ = merge_steps(merge, [one], in_memory, None, sketches=False)
    assert in_memory is not None
    for tensor in stream.plan.merged:
        assert torch.equal(in_memory.read(tensor.name), one_by_one.read(tensor.name))


@pytest.mark.parametrize("name", ["weight_average", "wudi", "ties"])
def test_states_in_float32_have_half_the_size_and_nearly_the_values(tmp_path: Path, stream: Stream, name: str) -> None:
    single, _ = merged(stream, name, tmp_path / "single", (1, 1, 1))
    double, _ = merged(stream, name, tmp_path / "double", (1, 1, 1), torch.float64)
    stored = load_file(single.folder / "accumulated.safetensors")
    assert {values.dtype for values in stored.values()} == {torch.float32}
    manifest = json.loads((single.folder / "state.json").read_text(encoding="utf-8"))
    assert (manifest["version"], manifest["dtype"]) == (3, "float32")
    assert "dtype" not in json.loads((double.folder / "state.json").read_text(encoding="utf-8"))
    load_state(single.folder).verify()
    for key in single.manifest.parts:
        part, other = single.read_part(key), double.read_part(key)
        assert part is not None
        assert other is not None
        assert part.dtype == (torch.float32 if part.dim() or key.startswith("sketch") else torch.float64)
        torch.testing.assert_close(part.double(), other.double(), rtol=1e-5, atol=1e-6)
    for tensor in stream.plan.merged:
        torch.testing.assert_close(single.read(tensor.name), double.read(tensor.name), rtol=1e-5, atol=1e-6)


def test_a_state_of_another_dtype_is_refused(tmp_path: Path, stream: Stream) -> None:
    state, _ = merged(stream, "opcm", tmp_path / "states", (1, 1), torch.float64)
    method = method_named("opcm")
    step_input = StepInput(stream.checkpoints[2], constant(method.Parameters()))
    merge = Merge(stream.base, method, stream.plan, torch.float32)
    with pytest.raises(CheckpointError, match="is in float64, not in float32"):
        merge_steps(merge, [step_input], state, None)
