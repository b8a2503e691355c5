"""Joint methods against what mergekit 0.1.5 computes: recorded values, and a fresh comparison where it is installed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

import hubmerge
from tests.mergekit.oracle import MERGEKIT, needs_mergekit

FOLDER = Path(__file__).parent
RECORDED = json.loads((FOLDER / "recorded.json").read_text(encoding="utf-8"))


def tensors(values: dict[str, Any], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, dtype=torch.float32).to(dtype) for name, value in values.items()}


def merged(one: dict[str, Any], inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    dtype = getattr(torch, one["dtype"])
    base, *others = (tensors(values, dtype) for values in inputs[: one["models"] + 1])
    own: list[dict[str, Any]] = [
        {name: value[number] for name, value in one["parameters"].items() if isinstance(value, list)}
        for number in range(len(others))
    ]
    return hubmerge.merge_state_dicts(
        base if one["base"] else None,
        others,
        method=one["method"],
        parameters={name: value for name, value in one["parameters"].items() if not isinstance(value, list)},
        own_parameters=own,
        recipe={"form": "joint"},
    )


def largest_difference(one: dict[str, Any], inputs: list[dict[str, Any]]) -> float:
    result = merged(one, inputs)
    expected = {name: torch.tensor(values, dtype=torch.float64) for name, values in one["values"].items()}
    return max(float((result[name].double() - values).abs().max()) for name, values in expected.items())


def title(one: dict[str, Any]) -> str:
    return one["method"] + ("" if one["base"] else "-without-base") + "".join(f"-{name}" for name in one["parameters"])


@pytest.mark.parametrize("one", RECORDED["results"], ids=title)
def test_a_joint_method_computes_what_mergekit_recorded(one: dict[str, Any]) -> None:
    assert largest_difference(one, RECORDED["inputs"]) < 3e-6


@pytest.mark.slow
@needs_mergekit
def test_a_joint_method_computes_what_mergekit_computes_now(tmp_path: Path) -> None:
    for seed in ("0", "1"):
        file = tmp_path / f"{seed}.json"
        subprocess.run([str(MERGEKIT), str(FOLDER / "record.py"), str(file), seed], check=True)
        fresh = json.loads(file.read_text(encoding="utf-8"))
        assert {title(one): largest_difference(one, fresh["inputs"]) < 3e-6 for one in fresh["results"]} == {
            title(one): True for one in RECORDED["results"]
        }
