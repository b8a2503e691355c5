"""Warnings of a run about entries whose task vectors lie far off the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.checkpoints.families import make, save

Command = Callable[..., tuple[int, str, str]]
FAMILY = "LlamaForCausalLM"
NAMES = ("a", "b", "c", "d", "e", "f")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(make(FAMILY), tmp_path_factory.mktemp("outliers") / "base")


@pytest.fixture(scope="module")
def stream(base: Path) -> dict[str, Path]:
    """Return six checkpoints whose changes share a third of their length, and three planted ones."""
    folder = base.parent
    start = load_file(base / "model.safetensors")

    def noise(seed: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return {name: 0.01 * torch.randn(value.shape, generator=generator) for name, value in start.items()}

    common = noise(0)
    changes = {
        name: {key: value + 0.7 * common[key] for key, value in noise(seed).items()}
        for seed, name in enumerate(NAMES, start=1)
    }
    changes["away"] = {key: -0.7 * common[key] + value for key, value in noise(7).items()}
    changes["against"] = {key: -1.2 * value for key, value in changes["b"].items()}
    changes["long"] = {key: 9.0 * value for key, value in noise(8).items()}
    found = {}
    for name, change in changes.items():
        found[name] = save(make(FAMILY), folder / name)
        save_file({key: start[key] + change[key] for key in start}, found[name] / "model.safetensors", {"format": "pt"})
    return found


def run(hubmerge: Command, folder: Path, base: Path, models: list[Path], **keys: Any) -> tuple[str, list[list[str]]]:
    """Return the output and the warnings of every step."""
    recipe = {
        "merge_method": "weight_average",
        "base_model": str(base),
        "models": [{"model": str(model), "name": model.name} for model in models],
        **keys,
    }
    folder.mkdir()
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    status, output, errors = hubmerge("run", path, "--work-dir", folder / "work", "--out", folder / "out")
    assert status == 0, output + errors
    steps = json.loads((folder / "out" / "hubmerge.json").read_text(encoding="utf-8"))["steps"]
    history = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((folder / "out").glob("history/*.json"))]
    return output, [step["warnings"] for step in history or steps]


def far_off(warnings: list[list[str]]) -> list[str]:
    return [text for step in warnings for text in step if "far off" in text or "opposed" in text]


def test_planted_outliers_are_named(hubmerge: Command, tmp_path: Path, base: Path, stream: dict[str, Path]) -> None:
    models = [stream[name] for name in (*NAMES, "away", "long", "against")]
    output, warnings = run(hubmerge, tmp_path / "planted", base, models)
    found = far_off(warnings)
    assert [text.split(" lies far off")[0] for text in found[:1]] == ["away"]
    assert "the mean cosine of its task vector with theirs is -0." in found[0]
    assert any(text.startswith("long lies far off") and "times as long" in text for text in found)
    [opposed] = [text for text in found if text.startswith("the task vector of against is opposed to that of b ")]
    assert "(cosine about -" in opposed
    for text in found:
        assert f": {text}" in output
    assert not any(text.startswith(name) for text in found for name in (f"{one} lies" for one in NAMES))


def test_a_stream_without_outliers_has_no_warning(
    hubmerge: Command, tmp_path: Path, base: Path, stream: dict[str, Path]
) -> None:
    models = [stream[name] for name in NAMES]
    output, warnings = run(hubmerge, tmp_path / "clean", base, models, merge_method="wudi")
    assert far_off(warnings) == []
    assert "far off" not in output
