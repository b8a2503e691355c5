"""Models of many classes with stacked and cut layers: every layer is that of its source, and the model generates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import hubmerge
from tests.run.stacked_models import CASES, Case, made, recipe_of

FAST = ("gpt2", "qwen2 with windows", "gemma 3 with a vision tower", "deepseek", "t5", "clip vision tower")


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def expected_tensors(case: Case, home: Path) -> dict[str, torch.Tensor]:
    """Return the stacked model by a literal reading of the rules."""
    models = {name: stored(home / name) for name in "ab"}
    places = [(name, layer) for name, first, end in case.ranges for layer in range(first, end)]
    inside = {key: stack for key in models["a"] for stack in case.stacks if key.startswith(stack)}
    shared = {key for key in inside if "relative_attention_bias" in key}
    found = {}
    for key in models["a"].keys() - (inside.keys() - shared):
        last = any(part in key for part in ("lm_head", "ln_f", "model.norm", "final_layer", "post_layernorm"))
        last |= key in {"norm.weight", "backbone.norm_f.weight"} or key.startswith("visual_projection")
        last &= not key.startswith(("text_model", "vision_tower"))
        found[key] = models[places[-1][0] if last else places[0][0]][key]
    for target, (name, layer) in enumerate(places):
        for key, stack in inside.items():
            if key.startswith(f"{stack}{layer}.") and key not in shared:
                found[f"{stack}{target}.{key.removeprefix(f'{stack}{layer}.')}"] = models[name][key]
    return found


def contains(found: Any, expected: Any) -> bool:
    if isinstance(expected, Mapping):
        return all(contains(found[key], value) for key, value in expected.items())
    return bool(found == expected)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in CASES])
def test_stacked_layers_are_those_of_their_sources_and_the_model_runs(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    model_class = made(case, tmp_path)
    out = tmp_path / "out"
    hubmerge.run(recipe_of(case, tmp_path), out=out, work_dir=tmp_path / "work", progress=None).finish()
    found, expected = stored(out), expected_tensors(case, tmp_path)
    assert set(found) == set(expected)
    assert {key for key, value in found.items() if not torch.equal(value, expected[key])} == set()
    assert contains(json.loads((out / "config.json").read_text(encoding="utf-8")), case.expected)
    model, info = model_class.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    if "CLIP" in case.name:
        inputs = {"pixel_values": torch.zeros(1, 3, 8, 8)}
        inputs |= {"input_ids": torch.tensor([[3, 4]])} if case.name == "CLIPModel" else {}
        assert model(**inputs) is not None
    else:
        written = model.generate(torch.tensor([[3, 4]]), max_new_tokens=3, do_sample=False)
        assert written.shape[0] == 1
