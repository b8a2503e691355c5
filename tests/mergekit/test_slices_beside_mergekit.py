"""Slices give what mergekit gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.mergekit.oracle import check_equals_mergekit, needs_mergekit
from tests.mergekit.sliced_models import CUT, MERGED, STACKED, merged, models

__all__ = ["models"]  # fixtures

BESIDE_MERGEKIT = {
    "stack": STACKED.replace("+DIR/adapter", ""),
    "sums": MERGED,
    "cut": CUT,
    "self-merge": """\
merge_method: passthrough
slices:
  - sources: [{model: DIR/a, layer_range: [0, 2]}]
  - sources: [{model: DIR/a, layer_range: [1, 3], parameters: {scale: [{filter: o_proj, value: 0.5}, {value: 1.0}]}}]
  - sources: [{model: DIR/a, layer_range: [2, 4]}]
""",
    "linear": """\
merge_method: linear
slices:
  - sources: [{model: DIR/a, layer_range: [0, 2]}, {model: DIR/b, layer_range: [2, 4]}]
    parameters: {weight: 1}
  - sources:
      - {model: DIR/b, layer_range: [3, 4], parameters: {weight: [1, 3]}}
      - {model: DIR/deep, layer_range: [5, 6], parameters: {weight: 0.5}}
""",
    "ties": MERGED.replace("task_arithmetic", "ties").replace("lambda: 0.9", "lambda: 0.9, density: [0.4, 1]"),
    "a base model of its own": """\
merge_method: slerp
base_model: DIR/base
slices:
  - sources: [{model: DIR/base, layer_range: [0, 2]}, {model: DIR/a, layer_range: [0, 2]}]
  - sources: [{model: DIR/a, layer_range: [2, 4]}, {model: DIR/b, layer_range: [2, 4]}]
    base_model: DIR/a
    parameters: {t: [{filter: mlp, value: [0.9, 0.1]}]}
parameters: {t: 0.4}
""",
}


@pytest.mark.slow
@needs_mergekit
@pytest.mark.parametrize("text", BESIDE_MERGEKIT.values(), ids=BESIDE_MERGEKIT)
def test_slices_give_what_mergekit_gives(models: Path, tmp_path: Path, text: str) -> None:
    ours = merged(models, tmp_path, text + "dtype: float32\n")
    check_equals_mergekit(ours, tmp_path)
    configs = [json.loads((tmp_path / side / "config.json").read_text(encoding="utf-8")) for side in ("out", "theirs")]
    assert configs[0]["num_hidden_layers"] == configs[1]["num_hidden_layers"]
