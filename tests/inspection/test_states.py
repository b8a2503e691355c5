"""Folders with states, as `hubmerge inspect` describes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import hubmerge as api
from hubmerge.executor import Merge, StepInput, merge_steps
from hubmerge.methods import method_named
from tests.executor.streams import constant, make_base, make_checkpoint, open_stream


@pytest.mark.parametrize(("dtype", "name"), [(torch.float64, "float64"), (torch.float32, "float32")])
def test_a_state_in_a_folder_is_described(tmp_path: Path, dtype: torch.dtype, name: str) -> None:
    rng, method = np.random.default_rng(0), method_named("wudi")
    base = make_base(rng)
    stream = open_stream(tmp_path, base, [make_checkpoint(rng, base) for _ in range(2)])
    inputs = [StepInput(checkpoint, constant(method.Parameters())) for checkpoint in stream.checkpoints]
    merge = Merge(stream.base, method, stream.plan, dtype)
    merge_steps(merge, inputs, None, tmp_path / "state")
    described = api.inspect(tmp_path / "state", progress=None)
    assert described.kind == "state"
    assert list(described.dtypes) == [name]
    assert described.bytes == described.state_bytes
    lines = str(described).splitlines()
    assert f"({name} {described.parameters:,})" in lines[1]
    assert [" ".join(line.split()[:3]) for line in lines[3:5]] == ["step 1 norm", "step 2 norm"]
