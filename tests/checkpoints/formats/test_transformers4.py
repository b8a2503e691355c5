"""Merged models of every family load in transformers 4, if an environment with it is named.

HUBMERGE_TRANSFORMERS4_PYTHON is the Python of an environment with `transformers<5`, torch and safetensors.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from tests.checkpoints.families import FAMILIES, base, save, tuned
from tests.checkpoints.matching.test_clip import tower
from tests.checkpoints.merging import merge
from tests.checks import every

PYTHON = os.environ.get("HUBMERGE_TRANSFORMERS4_PYTHON")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="HUBMERGE_TRANSFORMERS4_PYTHON names no Python with transformers 4"),
]

# Loads each folder and prints its missing tensors, and a sum over all values that does not depend on names or order.
LOADING = """
import json, sys, torch, transformers
transformers.logging.set_verbosity_error()
assert transformers.__version__.startswith("4."), transformers.__version__
told = {}
for folder, family in json.loads(sys.argv[1]).items():
    try:
        model, found = getattr(transformers, family).from_pretrained(folder, output_loading_info=True)
    except Exception as error:
        told[folder] = {"error": f"{type(error).__name__}: {error}"[:300]}
        continue
    parameters = {id(p): p for p in model.parameters()}.values()
    told[folder] = {
        "missing": sorted(found["missing_keys"]),
        "unexpected": sorted(found["unexpected_keys"]),
        "squares": sum(float(p.detach().double().square().sum()) for p in parameters),
        "version": transformers.__version__,
    }
print(json.dumps(told))
"""

# Saves again what transformers 5 saved.
SAVING = """
import json, sys, transformers
transformers.logging.set_verbosity_error()
for folder, (family, target) in json.loads(sys.argv[1]).items():
    getattr(transformers, family).from_pretrained(folder).save_pretrained(target)
"""

NOT_THE_PREFIX = "the tower in the names of transformers 5"


def squares(values: dict[str, torch.Tensor]) -> float:
    return sum(float(value.double().square().sum()) for value in values.values())


def readable(folder: Path) -> Path:
    """Write the number of experts under the key of repos on the Hub: transformers 5 writes another one."""
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] == "qwen3_moe":
        config["num_experts"] = config["num_local_experts"]
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def call(script: str, argument: object) -> str:
    assert PYTHON is not None
    done = subprocess.run([PYTHON, "-c", script, json.dumps(argument)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, object], float]]:
    """Return for each family what transformers 4 reports of the merged model, and the sum of its squares."""
    folder = tmp_path_factory.mktemp("merged")
    families: dict[str, tuple[Path, str]] = {}
    expected: dict[str, float] = {}
    for family in FAMILIES:
        entries = [save(tuned(family, seed), folder / family / f"tuned{seed}") for seed in (1, 2)]
        merged = merge(folder / family, readable(save(base(family), folder / family / "base")), entries)
        families[NOT_THE_PREFIX if family == "CLIPVisionModel" else family] = merged.folder, family
        expected[str(merged.folder)] = squares(merged.values())
    towers = [tower(folder, seed, "vision_model.") for seed in (0, 1, 2)]
    merged = merge(folder / "prefixed", towers[0], towers[1:])
    families["CLIPVisionModel"] = merged.folder, "CLIPVisionModel"
    expected[str(merged.folder)] = squares(merged.values())
    answers = json.loads(call(LOADING, {str(path): family for path, family in families.values()}).splitlines()[-1])
    return {name: (answers[str(path)], expected[str(path)]) for name, (path, _) in families.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_model_loads_whole(told: dict[str, tuple[dict[str, object], float]], family: str) -> None:
    answer, expected = told[family]
    assert "error" not in answer, answer
    assert answer["missing"] == []
    assert answer["unexpected"] == []
    assert answer["squares"] == pytest.approx(expected, rel=1e-9)


def test_towers_without_the_prefix_load_in_transformers_5_only(
    told: dict[str, tuple[dict[str, object], float]],
) -> None:
    answer, expected = told[NOT_THE_PREFIX]
    assert answer["missing"]
    assert answer["squares"] != pytest.approx(expected, rel=1e-9)


def test_models_saved_by_transformers_4_and_5_give_equal_merges(tmp_path: Path) -> None:
    asked = {}
    for family in FAMILIES:
        if family == "CLIPVisionModel":
            folder = tower(tmp_path / "clip", 1, "vision_model.")
        else:
            folder = readable(save(tuned(family, 1), tmp_path / family / "tuned"))
        asked[str(folder)] = (family, str(tmp_path / family / "older"))
    call(SAVING, asked)
    for folder_name, (family, older) in asked.items():
        start = save(base(family), tmp_path / family / "base")
        merges = [
            merge(tmp_path / family / which, start, [Path(source)]).values()
            for which, source in (("new", folder_name), ("old", older))
        ]
        assert set(merges[0]) == set(merges[1])
        assert every(torch.equal(merges[0][name], merges[1][name]) for name in merges[0]), family
