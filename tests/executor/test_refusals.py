"""Inputs that are refused, with their messages, and the dtypes of a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import hubmerge
from hubmerge.errors import CheckpointError
from hubmerge.executor import write_merged
from hubmerge.executor.state import find_state, load_state
from hubmerge.executor.state_writer import StateWriter
from hubmerge.linalg import cast_once
from tests.executor.streams import StateDict, make_base, make_checkpoint, merged_values, open_stream


@pytest.fixture
def values() -> tuple[StateDict, list[StateDict]]:
    rng = np.random.default_rng(33)
    base = make_base(rng)
    return base, [make_checkpoint(rng, base) for _ in range(2)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["block.wide.weight", "norm.weight", "temperature"])
def test_a_value_that_is_not_finite(
    tmp_path: Path, values: tuple[StateDict, list[StateDict]], name: str, value: float
) -> None:
    base, checkpoints = values
    spoilt = np.array(checkpoints[1][name])
    spoilt[(-1,) * spoilt.ndim] = value
    stream = open_stream(tmp_path, base, [checkpoints[0], {**checkpoints[1], name: spoilt}])
    with pytest.raises(CheckpointError) as caught:
        stream.merge(tmp_path / "states")
    message = str(caught.value)
    assert message.startswith(f"c2: tensor {name!r}: 1 of {spoilt.size} values are not finite, the first is {value}")
    assert [path.name for path in (tmp_path / "states").iterdir()] == ["c1"]


def test_a_base_model_that_is_not_finite(tmp_path: Path, values: tuple[StateDict, list[StateDict]]) -> None:
    base, checkpoints = values
    spoilt = {**base, "norm.weight": np.full(24, np.inf)}
    stream = open_stream(tmp_path, spoilt, [{**checkpoints[0], "norm.weight": np.zeros(24)}])
    with pytest.raises(CheckpointError, match=r"^base: tensor 'norm.weight': 24 of 24 values"):
        stream.merge(tmp_path / "states")


def test_what_does_not_fit_into_the_output_dtype(tmp_path: Path, values: tuple[StateDict, list[StateDict]]) -> None:
    base, checkpoints = values
    large = {**checkpoints[0], "norm.weight": np.full(24, 7e4)}
    stream = open_stream(tmp_path, base, [large], out_dtype=torch.float16)
    [(state, _)] = stream.merge(tmp_path / "states")
    with pytest.raises(CheckpointError, match=r"'norm.weight' does not fit into torch.float16: 24 of 24"):
        write_merged(stream.base, state, stream.plan, tmp_path / "merged")
    assert list((tmp_path / "merged").iterdir()) == []


def test_what_does_not_fit_into_the_input_dtype(tmp_path: Path, values: tuple[StateDict, list[StateDict]]) -> None:
    base, checkpoints = values
    stream = open_stream(tmp_path, base, [{**checkpoints[0], "norm.weight": np.full(24, 7e4)}])
    with pytest.raises(CheckpointError, match=r"c1: tensor 'norm.weight' has values that are too large for torch"):
        stream.merge(tmp_path / "states", input_dtype=torch.float16)


def test_differences_beyond_float64(tmp_path: Path) -> None:
    name = "block.square.weight"
    stream = open_stream(tmp_path, {name: np.full((48, 48), -1.7e308)}, [{name: np.full((48, 48), 1.7e308)}])
    with pytest.raises(CheckpointError, match="minus the base model overflows float64"):
        stream.merge(tmp_path / "states")


def test_dtype_is_what_inputs_are_rounded_to(tmp_path: Path, values: tuple[StateDict, list[StateDict]]) -> None:
    base, checkpoints = values
    half = open_stream(tmp_path / "half", base, checkpoints, dtype=torch.bfloat16, out_dtype=torch.float32)
    full = open_stream(tmp_path / "full", base, checkpoints, dtype=torch.float64, out_dtype=torch.float32)
    (expected, _) = half.merge(tmp_path / "half" / "states")[-1]
    (state, _) = full.merge(tmp_path / "full" / "states", input_dtype=torch.bfloat16)[-1]
    result = merged_values(full, state, tmp_path / "full" / "merged", input_dtype=torch.bfloat16)
    # float64 -> bfloat16 in one rounding differs from two roundings in a tie at most: the files of `half` were
    # written by torch, which rounds twice.
    for name, value in merged_values(half, expected, tmp_path / "half" / "merged").items():
        assert np.abs(result[name] - value).max() <= 1e-2 * np.abs(value).max()
    assert expected.scale == pytest.approx(state.scale, rel=1e-3)


def test_each_tensor_is_written_in_the_dtype_of_the_base_unless_told(
    tmp_path: Path, values: tuple[StateDict, list[StateDict]]
) -> None:
    base, checkpoints = values
    for out_dtype, expected in ((None, torch.bfloat16), (torch.float32, torch.float32)):
        folder = tmp_path / str(expected)
        stream = open_stream(
            folder, base, checkpoints, dtype=torch.float32, base_dtype=torch.bfloat16, out_dtype=out_dtype
        )
        (state, _) = stream.merge(folder / "states")[-1]
        [written] = write_merged(stream.base, state, stream.plan, folder / "merged").files
        header = json.loads(written.path.read_bytes()[8:].split(b"}}", 1)[0] + b"}}")
        codes = {entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
        assert codes == {"BF16" if expected == torch.bfloat16 else "F32"}


def test_casting_rounds_once() -> None:
    rng = np.random.default_rng(5)
    values = np.concatenate(
        [
            rng.standard_normal(2000),
            1.0 + 2.0**-11 + rng.choice([-1, 1], 500) * 2.0 ** -rng.integers(30, 50, 500),
            1e-7 * rng.standard_normal(500),
            [65519.999999999, 65520.0, -65504.0, 1e300, -1e300, 0.0, -0.0, np.inf, -np.inf],
        ]
    )
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    assert np.array_equal(cast_once(torch.from_numpy(values), torch.float16).numpy(), expected)
    tie = torch.tensor([1.0 + 2.0**-8 + 2.0**-40, 1.0 + 2.0**-8 - 2.0**-40, 1.0 + 2.0**-8], dtype=torch.float64)
    assert cast_once(tie, torch.bfloat16).to(torch.float64).tolist() == [1.0 + 2.0**-7, 1.0, 1.0]
    assert cast_once(torch.tensor([float("nan")], dtype=torch.float64), torch.bfloat16).isnan().all()


def test_a_state_of_another_merge(tmp_path: Path, values: tuple[StateDict, list[StateDict]]) -> None:
    base, checkpoints = values
    stream = open_stream(tmp_path, base, checkpoints)
    [(state, _)] = stream.merge(tmp_path / "states", steps=1)
    with pytest.raises(CheckpointError, match="was merged by opcm, not by magmax"):
        stream.merge(tmp_path / "states", "magmax", previous=state)
    fewer = [{n: v for n, v in c.items() if not n.startswith("norm")} for c in checkpoints]
    smaller = open_stream(tmp_path / "b", {n: base[n] for n in fewer[0]}, fewer)
    with pytest.raises(
        CheckpointError, match=r"does not have the tensors to merge; the first difference is 'norm.weight'"
    ):
        smaller.merge(tmp_path / "states", previous=state)


def test_damaged_states(tmp_path: Path, values: tuple[StateDict, list[StateDict]]) -> None:
    base, checkpoints = values
    stream = open_stream(tmp_path, base, checkpoints)
    [(state, _)] = stream.merge(tmp_path / "states", steps=1)
    folder = state.folder
    assert find_state(tmp_path / "nowhere") is None
    with pytest.raises(CheckpointError, match="there is no state"):
        load_state(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="has no tensor 'other'"):
        state.read("other")
    manifest = (folder / "state.json").read_text()
    wrong = {
        "not the manifest of a state": "{",
        "a state of format 9": manifest.replace('"version": 1', '"version": 9'),
        "do not list the same tensors": manifest.replace("norm.weight", "norm.other"),
        "with 1 norm and": manifest.replace('"step": 1', '"step": 2'),
    }
    for message, text in wrong.items():
        assert text != manifest
        (folder / "state.json").write_text(text)
        with pytest.raises(CheckpointError, match=message):
            load_state(folder)
    (folder / "state.json").write_text(manifest)
    with (folder / "accumulated.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    reopened = load_state(folder)
    with pytest.raises(CheckpointError, match="does not match its checksum"):
        reopened.verify()


def test_a_state_that_is_not_finished_never_appears(tmp_path: Path) -> None:
    with StateWriter(tmp_path / "state", {"a": (2,)}) as writer:
        writer.write("a", torch.ones(2, dtype=torch.float64))
    assert list(tmp_path.iterdir()) == []


def test_infinite_values_of_the_base_model_too_may_be_kept() -> None:
    mask = torch.full((4, 4), float("-inf")).triu(1)
    base, tuned = ({"a.weight": torch.full((2, 2), value), "attn.causal": mask} for value in (0.0, 1.0))
    with pytest.raises(CheckpointError, match=r"'attn.causal': 6 of 16 values are not finite") as caught:
        hubmerge.merge_state_dicts(base, [tuned], method="task_arithmetic")
    assert caught.value.context.tensor == "attn.causal"
    assert "the base model base has such values as well" in str(caught.value.hint)
    assert 'tensors: {exclude: ["attn.causal"]}' in str(caught.value.hint)
    tuned["a.weight"][0] = torch.nan
    del base["attn.causal"], tuned["attn.causal"]  # threads may find either of two wrong tensors first
    with pytest.raises(CheckpointError, match=r"'a.weight': 2 of 4 values") as caught:
        hubmerge.merge_state_dicts(base, [tuned], method="opcm")
    assert caught.value.hint == "do not merge this checkpoint; training probably diverged, or the file is corrupt"
