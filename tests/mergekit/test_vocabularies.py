"""Merges of models with different vocabularies: against rows computed here, and beside mergekit if it is installed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import hubmerge
from tests.mergekit.oracle import merged_by_mergekit, needs_mergekit
from tests.mergekit.vocabularies import write_models

EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
NAMES = ("base", "a", "b")
WEIGHTS = {"base": 0.5, "a": 0.3, "b": 0.2}
LINEAR: dict[str, Any] = {
    "merge_method": "linear",
    "base_model": "base",
    "models": [{"model": name, "parameters": {"weight": weight}} for name, weight in WEIGHTS.items()],
}
WITHOUT_BASE = {key: value for key, value in LINEAR.items() if key != "base_model"}
TOKENS = {
    "<new>": {"source": {"kind": "zero"}},
    "<a>": {"source": "a", "force": True},
    "<both>": {"source": {"kind": "model_token", "model": "b", "token": "<b>"}},
    "<s>": {"source": {"kind": "model_token", "model": "a", "token_id": 3}, "force": True},
}
RECIPES: dict[str, dict[str, Any]] = {
    "union": {**LINEAR, "tokenizer_source": "union"},
    "base": {**LINEAR, "tokenizer_source": "base"},
    "a model": {**LINEAR, "tokenizer_source": "a"},
    "union without a base model": {**WITHOUT_BASE, "tokenizer": {"source": "union"}},
    "tokens": {**LINEAR, "tokenizer": {"tokens": TOKENS, "pad_to_multiple_of": 16}},
    "tokens of the base model alone": {**LINEAR, "tokenizer": {"source": "base", "tokens": TOKENS}},
    "ties": {
        "merge_method": "ties",
        "base_model": "base",
        "models": [{"model": name, "parameters": {"weight": 0.5, "density": 0.6}} for name in ("a", "b")],
        "tokenizer_source": "union",
    },
    "slerp": {
        "merge_method": "slerp",
        "base_model": "base",
        "models": [{"model": "a"}],
        "parameters": {"t": 0.4},
        "tokenizer": {"source": "union", "pad_to_multiple_of": 8},
    },
    "task arithmetic with weights": {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "models": [{"model": "a", "parameters": {"weight": 0.7}}],
        "tokenizer_source": "a",
    },
}
WHERE_MERGEKIT_STOPS = {"tokens of the base model alone"}
"""mergekit 0.1.5 adds tokens to the base model's tokenizer and then looks for their rows: KeyError."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("tied"), tie=True)


def placed(value: Any, models: Path) -> Any:
    """Return a recipe with the folders of its models."""
    if isinstance(value, Mapping):
        return {key: placed(one, models) for key, one in value.items()}
    if isinstance(value, list):
        return [placed(one, models) for one in value]
    is_model = isinstance(value, str) and (models / value).is_dir() and value
    return str(models / value) if is_model else value


def recipe_file(recipe: Mapping[str, Any], models: Path, folder: Path) -> Path:
    keys = placed({key: value for key, value in recipe.items() if key != "tokenizer_source"}, models)
    source = recipe.get("tokenizer_source")
    if source is not None:
        keys["tokenizer_source"] = source if source in {"union", "base"} else str(models / source)
    if "tokenizer" in keys:
        keys["tokenizer"]["source"] = recipe["tokenizer"].get("source", "union")
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump({**keys, "dtype": "float32"}, sort_keys=False), encoding="utf-8")
    return file


def merged(recipe: Mapping[str, Any], models: Path, folder: Path) -> Path:
    """Run a recipe, and return the folder of the merged model."""
    file = recipe_file(recipe, models, folder)
    hubmerge.run(file, out=folder / "out", work_dir=folder / "work", progress=None).finish()
    return folder / "out"


def rows_of(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """Return the row of each token."""
    tokens = AutoTokenizer.from_pretrained(folder).get_vocab()
    tensor = load_file(folder / "model.safetensors")[name]
    return {token: tensor[number] for token, number in tokens.items()}


def expected_rows(recipe: Mapping[str, Any], models: Path, name: str) -> dict[str, torch.Tensor]:
    """Return the weighted mean of each token's rows, by the rules in the docs."""
    own = {one: rows_of(models / one, name) for one in NAMES}
    options = recipe.get("tokenizer") or {"source": recipe["tokenizer_source"]}
    source, named = options.get("source", "union"), options.get("tokens") or {}
    chosen = own if source == "union" else {source: own[source]}
    result = {}
    for token in dict.fromkeys([*(token for rows in chosen.values() for token in rows), *named]):
        having = [rows[token] for rows in own.values() if token in rows]
        row = torch.stack(having).mean(0) if having else torch.zeros(8)
        if "base_model" in recipe and token in own["base"]:
            row = own["base"][token]
        if token in named:
            row = named_row(named[token]["source"], token, models, own, name)
        force = named.get(token, {}).get("force", False)
        given = {one: row if force else rows.get(token, row) for one, rows in own.items()}
        result[token] = torch.stack([weight * given[one] for one, weight in WEIGHTS.items()]).sum(0)
    return result


def named_row(
    source: Any, token: str, models: Path, own: Mapping[str, Mapping[str, torch.Tensor]], name: str
) -> torch.Tensor:
    if isinstance(source, str):
        return own[source][token]
    if source["kind"] == "zero":
        return torch.zeros(8)
    if "token" in source:
        return own[source["model"]][source["token"]]
    return load_file(models / source["model"] / "model.safetensors")[name][source["token_id"]]


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe["merge_method"] == "linear"])
def test_each_token_gets_the_mean_of_its_rows(name: str, models: Path, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    folder = merged(recipe, models, tmp_path)
    for tensor in (EMBEDDINGS, HEAD):
        found, expected = rows_of(folder, tensor), expected_rows(recipe, models, tensor)
        assert found.keys() == expected.keys()
        assert max(float((found[token] - expected[token]).abs().max()) for token in found) < 1e-6
    check_loads(folder)


def check_loads(folder: Path) -> None:
    """Check that transformers loads a model with its tokenizer and generates, and that the config fits."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    rows = model.get_input_embeddings().weight.shape[0]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (config["vocab_size"], rows) == (rows, model.get_output_embeddings().weight.shape[0])
    assert config["eos_token_id"] == tokenizer.convert_tokens_to_ids("</s>")
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == config["eos_token_id"]
    words = tokenizer("lower older", return_tensors="pt")
    assert model.generate(**words, max_new_tokens=2, do_sample=False).shape[1] > words.input_ids.shape[1]


@pytest.mark.slow
@needs_mergekit
@pytest.mark.parametrize("kind", ["models", "tied"])
@pytest.mark.parametrize("name", [name for name in RECIPES if name not in WHERE_MERGEKIT_STOPS])
def test_each_token_has_the_row_that_mergekit_gives(
    name: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    models: Path = request.getfixturevalue(kind)
    folder = merged(RECIPES[name], models, tmp_path)
    tensors = [load_file(folder / "model.safetensors"), merged_by_mergekit(tmp_path, tokenizer=True)]
    assert tensors[0].keys() == tensors[1].keys()
    for tensor in tensors[0]:
        ours, theirs = (one[tensor] for one in tensors)
        assert ours.shape == theirs.shape
        if tensor not in {EMBEDDINGS, HEAD}:
            assert torch.allclose(ours, theirs, atol=3e-6), tensor
    for tensor in {EMBEDDINGS, HEAD} & tensors[0].keys():
        found, expected = rows_of(folder, tensor), rows_of(tmp_path / "theirs", tensor)
        assert found.keys() == expected.keys()
        assert max(float((found[token] - expected[token]).abs().max()) for token in found) < 3e-6
        ours, theirs = (one[tensor][len(found) :] for one in tensors)
        assert torch.allclose(ours, theirs, atol=3e-6)
