"""Small embedders with pooling and prompts, and recipes that merge and score them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import yaml

from tests.evaluation.small_text import save_tokenizer, sentences
from tests.evaluation.test_own_heads import BERT, save

PROMPTS = {"query": "cat ", "document": "dog bird "}


def save_embedder(folder: Path, seed: int, **options: Any) -> None:
    import sentence_transformers
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    save(folder / "plain", "BertModel", BERT, seed)
    save_tokenizer(folder / "plain")
    body = Transformer(str(folder / "plain"))
    pooling = Pooling(16, pooling_mode="cls")
    sentence_transformers.SentenceTransformer(modules=[body, pooling], device="cpu", **options).save(str(folder))


@pytest.fixture(scope="module")
def embedders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a base embedder and two others, with pooling by the first token and prompts for queries and documents."""
    root = tmp_path_factory.mktemp("embedders")
    for seed, name in enumerate(("base", "one", "two")):
        save_embedder(root / name, seed, prompts=PROMPTS, similarity_fn_name="dot")
    pairs = {"sentence1": sentences(24, 1), "sentence2": sentences(24, 2), "score": np.linspace(0, 5, 24).tolist()}
    (root / "sts").mkdir()
    datasets.Dataset.from_dict(pairs).to_parquet(root / "sts" / "test.parquet")
    return root


def recipe(root: Path, folder: Path, *tasks: dict[str, Any], **keys: Any) -> Path:
    found = {
        "merge_method": "weight_average",
        "base_model": str(root / "base"),
        "models": [{"model": str(root / name), "name": name} for name in ("one", "two")],
        "evaluate": {"tasks": list(tasks)},
        **keys,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(found, sort_keys=False))
    return path
