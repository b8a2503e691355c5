"""Combined streams whose products or states are in float32 are those of one run, as far as float32 goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import hubmerge
from hubmerge.executor.state import MergeState, load_state
from hubmerge.verify.states import FLOAT32_TOLERANCE, STATE_TOLERANCE
from tests.stage import Stage

PRODUCTS: dict[str, Any] = {"parameters": {"precision": "float32"}}
STATES: dict[str, Any] = {"state_dtype": "float32"}


class Folders:
    """Streams of the tiny stage in folders, with their states."""

    def __init__(self, stage: Stage, folder: Path, **keys: Any) -> None:
        self.stage, self.folder = stage, folder
        self.keys: dict[str, Any] = {"merge_method": "wudi", "evaluate": None, **keys}

    def merged(self, name: str, *entries: str, **keys: Any) -> Path:
        recipe = self.stage.recipe(None, entries=entries, **{**self.keys, **keys})
        out = self.folder / name
        hubmerge.StepRun(recipe, out=out, state=True, work_dir=self.folder / "work", progress=None).finish()
        return out

    def combined(self, *folders: Path) -> Path:
        out = self.folder / "combined"
        hubmerge.combine(folders, out=out, state=True, work_dir=self.folder / "work", progress=None)
        return out


def distances(one: MergeState, other: MergeState) -> dict[str, float]:
    """Return the relative distance of each tensor and each part of two states; sketches are equal in any order."""
    keys = [key for key in one.manifest.parts if not key.startswith("sketch/")]
    pairs = {name: (one.read(name), other.read(name)) for name in one.shapes()}
    for key in keys:
        first, second = one.read_part(key), other.read_part(key)
        assert first is not None
        assert second is not None
        pairs[key] = first.double(), second.double()
    return {key: float(torch.norm(a - b) / (torch.norm(b) or 1.0)) for key, (a, b) in pairs.items()}


@pytest.mark.parametrize(
    ("keys", "most"),
    [
        (PRODUCTS, STATE_TOLERANCE),
        pytest.param(STATES, FLOAT32_TOLERANCE, marks=pytest.mark.slow),
        ({**PRODUCTS, **STATES}, FLOAT32_TOLERANCE),
    ],
    ids=["products", "states", "both"],
)
def test_combined_streams_in_float32(keys: dict[str, Any], most: float, stage: Stage, tmp_path: Path) -> None:
    folders = Folders(stage, tmp_path, **keys)
    first, second, third = stage.towers
    whole = folders.merged("whole", first, second, third)
    both = folders.combined(folders.merged("pair", second, third), folders.merged("one", first))
    found, expected = load_state(both / "state"), load_state(whole / "state")
    assert found.manifest.dtype == keys.get("state_dtype", "float64")
    apart = distances(found, expected)
    assert len(apart) > len(found.shapes())
    assert max(apart.values()) <= most
    verdict = hubmerge.verify(str(both), progress=None)
    assert verdict.verified, str(verdict)


def test_products_of_two_precisions_do_not_mix(stage: Stage, tmp_path: Path) -> None:
    folders = Folders(stage, tmp_path)
    first, second, third = stage.towers
    double = folders.merged("double", first)
    with pytest.raises(hubmerge.UsageError, match=r"with precision = float32, .* with float64: all entries"):
        folders.combined(double, folders.merged("single", second, **PRODUCTS))
    named = folders.merged("named", third, parameters={"precision": "float64", "others": "mean"})
    assert folders.combined(double, named).is_dir()
