"""Random recipes: read here without surprises, and beside mergekit where it is installed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import hubmerge
from hubmerge import HubmergeError
from tests.mergekit import vocabularies
from tests.mergekit.oracle import MERGEKIT, needs_mergekit
from tests.mergekit.random_recipes import LAYERS, NAMES, Writer

COUNT = 150
OURS = ("sum to zero", "besides the base model, got 0")
"""Reasons to refuse a recipe that mergekit runs. docs/mergekit.md has each."""

BOTH = (
    "is not among the sources of this slice",
    "at least 2 models besides the base model, got 1",
    "needs this parameter, for every entry and every tensor",
    "is taken by the entry",
    "is in the slice twice",
)
"""Reasons for which mergekit refuses a recipe too."""

FLOAT32 = ("arcee_fusion", "ramplus_tl")
"""Methods of mergekit whose result is float32 whatever the dtype of the recipe is."""

ROWS = ("model.embed_tokens.weight", "lm_head.weight")
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Bounds:
    """Largest difference of an element, relative to the largest one of its tensor, and how many may exceed it."""

    difference: float
    share: float


EXACT = Bounds(2e-5, 0.0)
NARROW = Bounds(0.02, 0.0)
IN_BFLOAT16 = Bounds(0.02, 0.25)
"""mergekit computes in bfloat16: thresholds and signs near zero fall otherwise."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with models of one vocabulary, and models with tokenizers of their own."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(NAMES):
        torch.manual_seed(seed)
        sizes = {**vocabularies.SIZES, "num_hidden_layers": LAYERS}
        LlamaForCausalLM(LlamaConfig(vocab_size=16, **sizes)).save_pretrained(folder / name)
    added = {"base": [], "a": ["<a>", "<both>"], "b": ["<both>", "<b>"]}
    for seed, (name, text) in enumerate(vocabularies.TEXTS.items()):
        tokenizer = vocabularies.bytes_tokenizer(text, added[name])
        vocabularies.write_model(folder / f"t-{name}", seed, tokenizer, num_hidden_layers=LAYERS)
    return folder


def placed(value: Any, models: Path) -> Any:
    """Return a recipe with the folders of its models."""
    if isinstance(value, Mapping):
        kept = {"tokenizer_source": "base", "source": "base"}
        return {key: one if kept.get(key) == one else placed(one, models) for key, one in value.items()}
    if isinstance(value, list):
        return [placed(one, models) for one in value]
    return str(models / value) if isinstance(value, str) and value and (models / value).is_dir() else value


def test_random_recipes_load_or_are_refused_for_a_reason_in_the_docs(models: Path, tmp_path: Path) -> None:
    writer, surprises = Writer(1), []
    for number in range(60):
        recipe = writer.recipe()
        file = tmp_path / f"{number}.yaml"
        file.write_text(yaml.safe_dump(placed(recipe, models)), encoding="utf-8")
        try:
            hubmerge.load(file)
        except HubmergeError as error:
            if not any(reason in str(error) for reason in OURS + BOTH):
                surprises.append((str(error), recipe))
    assert surprises == []


@pytest.mark.slow
@needs_mergekit
def test_random_recipes_give_what_mergekit_gives(models: Path, tmp_path: Path) -> None:
    writer = Writer(0)
    recipes = [placed(writer.recipe(), models) for _ in range(COUNT)]
    errors = theirs(recipes, tmp_path)
    found = [
        (answer, recipe)
        for number, recipe in enumerate(recipes)
        for answer in surprise(recipe, number, tmp_path, errors)
    ]
    assert found == []
    assert len(errors) < COUNT / 4


def theirs(recipes: list[Any], folder: Path) -> dict[str, str]:
    """Run all recipes with mergekit, and return why some of them failed."""
    (folder / "recipes.json").write_text(json.dumps(recipes), encoding="utf-8")
    program = Path(__file__).with_name("run_recipes.py")
    environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    command: list[str | Path] = [str(MERGEKIT), program, folder / "recipes.json", folder]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    errors: dict[str, str] = json.loads((folder / "errors.json").read_text(encoding="utf-8"))
    return errors


def surprise(recipe: Any, number: int, folder: Path, errors: Mapping[str, str]) -> list[str]:
    """Run a recipe here; return what is not as expected."""
    file, out = folder / f"{number}.yaml", folder / f"{number}-ours"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    try:
        hubmerge.run(file, out=out, work_dir=folder / f"{number}-work", progress=None).finish()
    except HubmergeError as error:
        known = str(number) in errors or any(reason in str(error) for reason in OURS)
        return [] if known else [f"refused: {error}"]
    return [] if str(number) in errors else differences(recipe, out, folder / str(number))


def differences(recipe: Any, ours: Path, others: Path) -> list[str]:
    """Return how two merged models differ; rows of a joined vocabulary are compared token by token."""
    one, other = (load_file(folder / "model.safetensors") for folder in (ours, others))
    if one.keys() != other.keys():
        return [f"tensors: {sorted(one.keys() ^ other.keys())}"]
    if "tokenizer_source" in recipe or "tokenizer" in recipe:
        numbers = [AutoTokenizer.from_pretrained(folder).get_vocab() for folder in (ours, others)]
        if numbers[0].keys() != numbers[1].keys():
            return [f"tokens: {sorted(numbers[0].keys() ^ numbers[1].keys())}"]
        for name in ROWS:
            for tensors, places in zip((one, other), numbers, strict=True):
                tensors[name] = tensors[name][[places[token] for token in sorted(places)]]
    if recipe["merge_method"] in FLOAT32:
        other = {name: value.to(one[name].dtype) for name, value in other.items()}
    narrow = any(value.dtype != torch.float32 for value in other.values())
    bounds = IN_BFLOAT16 if recipe.get("dtype") == "bfloat16" else NARROW if narrow else EXACT
    return [text for name in one for text in apart(name, one[name], other[name], bounds)]


def apart(name: str, one: torch.Tensor, other: torch.Tensor, bounds: Bounds) -> list[str]:
    """Return how two tensors differ."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return [f"{name}: {one.dtype} {tuple(one.shape)}, {other.dtype} {tuple(other.shape)}"]
    largest = other.float().abs().max().clamp(min=1e-6)
    far = (one.float() - other.float()).abs() > bounds.difference * largest
    return [f"{name}: {int(far.sum())} elements"] if float(far.float().mean()) > bounds.share else []
