"""All recipes in the form that people publish, run on tiny models, and beside mergekit where it is installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import hubmerge
from hubmerge.errors import CheckpointError
from tests.checks import every
from tests.mergekit import vocabularies
from tests.mergekit.oracle import MERGEKIT, needs_mergekit

FOLDER = Path(__file__).parent / "recipes" / "published"
LAYERS = 8
"""Layers of the tiny models; a recipe with more of them has its ranges divided by whole numbers."""

MODULES = ("27-one-module.yaml", "28-two-modules.yaml")
"""Recipes for models with a vision tower; `test_modules.py` runs these."""

REFUSED = {"12-della-linear.yaml"}
"""Recipes that both refuse when they run: density 0.9 plus epsilon 0.1 is 1."""

RANDOM = ("dare_linear", "dare_ties", "della", "della_linear")
"""Methods whose results are random in mergekit."""

ROWS = ("model.embed_tokens.weight", "lm_head.weight")
"""Tensors whose rows have another order in mergekit where a recipe builds a tokenizer."""

_REFERENCE = re.compile(r"([a-z][\w-]*/[\w.-]+)(?:@[\w.-]+)?(?:\+([\w-]+/[\w.-]+)(?:@[\w.-]+)?)?")
FILES = [file for file in sorted(FOLDER.iterdir()) if file.name not in MODULES]


class Shelf:
    """Folder with a tiny model for each name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def model(self, name: str, *, alike: bool) -> str:
        """Return the folder of a model; `alike` models have one vocabulary."""
        folder = self.folder / ("alike" if alike else "own") / name
        if not folder.is_dir():
            seed = sum(map(ord, name))
            added = [] if alike else ["<|im_start|>", "<|im_end|>", f"<{seed % 3}>"]
            tokenizer = vocabularies.bytes_tokenizer("low lower lowest newer newest", added)
            vocabularies.write_model(folder, seed, tokenizer, num_hidden_layers=LAYERS)
            file, generator = folder / "model.safetensors", torch.Generator().manual_seed(seed)
            tensors = load_file(file)
            for key, tensor in tensors.items():
                if "norm" in key:  # a new model has ones there
                    tensors[key] = tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
            save_file(tensors, file, metadata={"format": "pt"})
        return str(folder)

    def adapter(self, name: str) -> str:
        """Return the folder of an adapter."""
        folder = self.folder / "adapters" / name
        if not folder.is_dir():
            folder.mkdir(parents=True)
            generator = torch.Generator().manual_seed(sum(map(ord, name)))
            key = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
            shapes = {"A": (2, 8), "B": (8, 2)}
            tensors = {
                key.format(layer, side): 0.1 * torch.randn(shape, generator=generator)
                for layer in range(LAYERS)
                for side, shape in shapes.items()
            }
            save_file(tensors, folder / "adapter_model.safetensors")
            keys = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
            (folder / "adapter_config.json").write_text(json.dumps(keys | {"task_type": "CAUSAL_LM"}), encoding="utf-8")
        return str(folder)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("models"))


def placed(value: Any, shelf: Shelf, step: int, *, alike: bool) -> Any:
    """Return a recipe with folders in place of repos, and with ranges of layers that tiny models have."""
    if isinstance(value, list):
        return [placed(one, shelf, step, alike=alike) for one in value]
    if isinstance(value, dict):
        found = {key: placed(one, shelf, step, alike=alike) for key, one in value.items()}
        if "layer_range" in found:
            found["layer_range"] = [place // step for place in found["layer_range"]]
        if isinstance(found.get("lora"), dict):
            found["lora"] = {"path": shelf.adapter(value["lora"]["path"])}
        return {key: one for key, one in found.items() if key != "revision"}
    match = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        stage, plus, adapter = value.partition("+") if isinstance(value, str) else ("", "", "")
        return f"{stage}+{shelf.adapter(adapter)}" if plus else value
    model = shelf.model(match[1], alike=alike)
    return model if match[2] is None else f"{model}+{shelf.adapter(match[2])}"


def written(file: Path, shelf: Shelf, folder: Path) -> Path:
    """Write a recipe for tiny models in float32, and return its file."""
    text = file.read_text(encoding="utf-8")
    ends = [int(end) for end in re.findall(r"layer_range: *\[ *\d+, *(\d+)", text)]
    step = -(-max(ends, default=LAYERS) // LAYERS)
    alike = "tokenizer" not in text and "chat_template" not in text
    documents = [placed(one, shelf, step, alike=alike) for one in yaml.safe_load_all(text)]
    for document in documents:
        document.pop("out_dtype", None)
        document["dtype"] = "float32"
        for key in [key for key in document if key.startswith("x-")]:  # they hold anchors, which are resolved by now
            del document[key]
    made = folder / file.name
    made.write_text(yaml.safe_dump_all(documents, sort_keys=False), encoding="utf-8")
    return made


def merged(file: Path, folder: Path) -> dict[str, torch.Tensor]:
    hubmerge.run(file, out=folder / "ours", work_dir=folder / "work", progress=None).finish()
    return load_file(folder / "ours" / "model.safetensors")


@pytest.mark.parametrize("name", ["14-stack-passthrough.yaml", "70-tokenizer-of-fewer-tokens.yaml"])
def test_a_published_recipe_runs(name: str, shelf: Shelf, tmp_path: Path) -> None:
    tensors = merged(written(FOLDER / name, shelf, tmp_path), tmp_path)
    assert every(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


@pytest.mark.slow
@needs_mergekit
def test_published_recipes_give_what_mergekit_gives(shelf: Shelf, tmp_path: Path) -> None:
    files = [written(file, shelf, tmp_path) for file in FILES]
    single = [file for file in files if len([*yaml.safe_load_all(file.read_text(encoding="utf-8"))]) == 1]
    recipes = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in single]
    (tmp_path / "recipes.json").write_text(json.dumps(recipes), encoding="utf-8")
    program = Path(__file__).with_name("run_recipes.py")
    environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    command: list[str | Path] = [str(MERGEKIT), program, tmp_path / "recipes.json", tmp_path]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    refused = {single[int(number)].name for number in json.loads((tmp_path / "errors.json").read_text("utf-8"))}
    assert refused == REFUSED
    for file in files:
        if file.name in REFUSED:
            with pytest.raises(CheckpointError, match="must be between 0 and 1"):
                merged(file, tmp_path / file.stem)
            continue
        ours = merged(file, tmp_path / file.stem)
        if file in single:
            number = single.index(file)
            theirs = load_file(tmp_path / str(number) / "model.safetensors")
            assert differences(ours, theirs, recipes[number]) == {}, file.name


def differences(
    ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], recipe: dict[str, Any]
) -> dict[str, float]:
    """Return by name how much two models differ, without what is random in mergekit or has an order of its own."""
    assert set(ours) == set(theirs)
    if recipe["merge_method"] in RANDOM:
        return {}
    left_out = ROWS if "tokenizer" in recipe or "tokenizer_source" in recipe else ()
    found = {name: float((ours[name] - theirs[name]).abs().max()) for name in ours if name not in left_out}
    return {name: value for name, value in found.items() if value > 1e-5}
