"""Recipes in the form that people publish, run on tiny models."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import hubmerge
from tests.mergekit import vocabularies

FOLDER = Path(__file__).parent / "recipes" / "published"
LAYERS = 8
"""Layers of the tiny models; a recipe with more of them has its ranges divided by whole numbers."""

_REFERENCE = re.compile(r"([a-z][\w-]*/[\w.-]+)(?:@[\w.-]+)?(?:\+([\w-]+/[\w.-]+)(?:@[\w.-]+)?)?")


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
        return value
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
    made = folder / file.name
    made.write_text(yaml.safe_dump_all(documents, sort_keys=False), encoding="utf-8")
    return made


def merged(file: Path, folder: Path) -> dict[str, torch.Tensor]:
    hubmerge.run(file, out=folder / "ours", work_dir=folder / "work", progress=None).finish()
    return load_file(folder / "ours" / "model.safetensors")


@pytest.mark.parametrize("name", ["14-stack-passthrough.yaml", "70-tokenizer-of-fewer-tokens.yaml"])
def test_a_published_recipe_runs(name: str, shelf: Shelf, tmp_path: Path) -> None:
    tensors = merged(written(FOLDER / name, shelf, tmp_path), tmp_path)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())
