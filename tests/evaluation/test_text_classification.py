from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from hubmerge.errors import CheckpointError, EvaluationError
from hubmerge.evaluation import task_kind_named
from hubmerge.evaluation.head_rows import find_head_rows
from hubmerge.evaluation.text_model import most_tokens
from merge_recipes import Task
from tests.evaluation.small_text import LABELS, NAMES, opened, rows_of, save_model, save_tokenizer

KIND = task_kind_named("text-classification")
BERT = "BertForSequenceClassification"


def task(**changes: Any) -> Task:
    dataset = {"path": "me/texts", **changes.pop("dataset", {})}
    return Task.model_validate_json(json.dumps({"name": "x", "kind": KIND.name, "dataset": dataset, **changes}))


def make(folder: Path, kind: str = BERT, seed: int = 0, *, pads: bool = True, **config: Any) -> Any:
    """Return a saved model with its tokenizer."""
    model = save_model(folder, kind, seed, **{**NAMES, **config})
    return model, save_tokenizer(folder, pads=pads)


def scorer_of(folder: Path) -> Any:
    return KIND.open_scorer(folder, opened(folder), identity="0" * 40)


def prepare(scorer: Any, cache: Path, rows: Any = None, **changes: Any) -> Any:
    rows = rows_of() if rows is None else rows
    return KIND.prepare(task(**changes), rows, scorer, cache, dataset_commit=None, batch_size=7)


@torch.no_grad()
def expected(model: Any, tokenizer: Any, texts: Any) -> np.ndarray:
    """One text at a time, through transformers alone."""
    rows = [model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=12)).logits[0] for text in texts]
    return torch.stack(rows).numpy()


@pytest.mark.parametrize(
    ("kind", "pads"),
    [(BERT, True), ("GPT2ForSequenceClassification", False), ("LlamaForSequenceClassification", True)],
)
def test_it_gives_what_transformers_gives(kind: str, pads: bool, tmp_path: Path) -> None:
    model, tokenizer = make(tmp_path / "base", kind, pads=pads)
    other, _ = make(tmp_path / "other", kind, seed=1, pads=pads)
    scorer = scorer_of(tmp_path / "base")
    prepared = prepare(scorer, tmp_path)
    for scored, folder in ((model, "base"), (other, "other")):
        scorer.load(opened(tmp_path / folder))
        assert scorer.label == folder
        logits = expected(scored, tokenizer, rows_of()["text"])
        np.testing.assert_allclose(prepared.logits(scorer), logits, rtol=1e-4, atol=1e-5)
        share = (logits.argmax(1) == np.arange(40) % 4).mean()
        assert prepared.score(scorer) == {"accuracy": share}
    scorer.load_base()
    np.testing.assert_allclose(prepared.logits(scorer), expected(model, tokenizer, rows_of()["text"]), atol=1e-4)


def test_a_task_has_some_of_the_head_s_classes_in_an_order_of_its_own(tmp_path: Path) -> None:
    model, tokenizer = make(tmp_path / "base")
    scorer = scorer_of(tmp_path / "base")
    prepared = prepare(scorer, tmp_path, rows_of(("Cat", "GOOD")))
    assert prepared.class_names == ("Cat", "GOOD")
    whole = expected(model, tokenizer, rows_of()["text"])
    np.testing.assert_allclose(prepared.logits(scorer), whole[:, [3, 0]], atol=1e-5)
    renamed = prepare(scorer, tmp_path, rows_of(("kitten", "fine")), class_names=["cat", "good"])
    assert renamed.head_rows == prepared.head_rows


def test_long_texts_are_cut_and_the_cap_takes_a_sample(tmp_path: Path) -> None:
    model, tokenizer = make(tmp_path / "base")
    long = datasets.Dataset.from_dict({"text": ["the cat " * 30, "bad dog"], "label": ["cat", "dog"]})
    scorer = scorer_of(tmp_path / "base")
    prepared = prepare(scorer, tmp_path, long)
    np.testing.assert_allclose(prepared.logits(scorer), expected(model, tokenizer, long["text"])[:, [3, 2]], atol=1e-5)
    whole, capped = prepare(scorer, tmp_path), prepare(scorer, tmp_path, dataset={"max_examples": 3})
    assert (capped.examples, len(set(capped.labels))) == (3, 3)
    first = prepare(scorer, tmp_path, dataset={"max_examples": 3, "sample": "first"})
    assert (first.texts, first.labels.tolist()) == (whole.texts[:3], whole.labels[:3].tolist())


@pytest.mark.parametrize(
    ("kind", "keys", "expected"),
    [
        ("GPT2Config", {"n_positions": 12}, 12),
        ("GPTJConfig", {"n_positions": 12}, 12),
        ("MptConfig", {"max_seq_len": 12}, 12),
        ("LlamaConfig", {"max_position_embeddings": 12}, 12),
        ("RobertaConfig", {"max_position_embeddings": 12, "pad_token_id": 1}, 10),
        ("T5Config", {}, 77),
    ],
)
def test_the_longest_text_has_as_many_tokens_as_the_model_has_positions(
    kind: str, keys: dict[str, int], expected: int
) -> None:
    tokenizer = SimpleNamespace(model_max_length=77)
    assert most_tokens(getattr(transformers, kind)(**keys).to_dict(), tokenizer) == expected


def test_all_metrics_are_computed(tmp_path: Path) -> None:
    make(tmp_path / "base")
    scorer = scorer_of(tmp_path / "base")
    scores = prepare(scorer, tmp_path, metrics=["f1", "accuracy", "confusion"]).score(scorer)
    assert list(scores) == ["f1", "accuracy", "confusion"]
    assert np.sum(scores["confusion"]) == 40


def test_a_fine_tuned_checkpoint_may_have_another_head(tmp_path: Path) -> None:
    base, tokenizer = make(tmp_path / "base")
    make(tmp_path / "own", seed=3, id2label={0: "x", 1: "y"}, label2id={"x": 0, "y": 1})
    own = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "own")
    scorer = scorer_of(tmp_path / "base")
    prepared = prepare(scorer, tmp_path)
    with pytest.raises(CheckpointError, match=r"classifier"):
        scorer.load(opened(tmp_path / "own"))
    scorer.load(opened(tmp_path / "own"), check_frozen=False)
    own.classifier = base.classifier
    np.testing.assert_allclose(prepared.logits(scorer), expected(own, tokenizer, rows_of()["text"]), atol=1e-4)


def test_old_names_of_layer_norms_are_known(tmp_path: Path) -> None:
    make(tmp_path / "base")
    other, tokenizer = make(tmp_path / "other", seed=5)
    file = tmp_path / "other" / "model.safetensors"
    tensors = load_file(file)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in tensors.items()
    }
    assert old.keys() != tensors.keys()
    save_file(old, file)
    scorer = scorer_of(tmp_path / "base")
    scorer.load(opened(tmp_path / "other"))
    logits = prepare(scorer, tmp_path).logits(scorer)
    np.testing.assert_allclose(logits, expected(other, tokenizer, rows_of()["text"]), atol=1e-4)


def test_values_that_are_not_finite_are_told(tmp_path: Path) -> None:
    make(tmp_path / "base")
    scorer = scorer_of(tmp_path / "base")
    prepared = prepare(scorer, tmp_path)
    with torch.no_grad():
        scorer.model.classifier.bias[1] = torch.nan
    with pytest.raises(EvaluationError, match="not finite"):
        prepared.score(scorer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": ["a {}"]}, "has no prompts"),
        ({"dataset": {"text": "sentence"}}, "no text column 'sentence' in the dataset; its columns: text, label"),
        ({"dataset": {"text": "label"}}, "not texts"),
        ({"dataset": {"label": "text"}, "class_names": ["a"]}, "not among class_names"),
        ({"class_names": ["good", "bad", "fish", "bird"]}, "has no class 'fish'"),
        ({"metrics": ["perplexity"]}, "perplexity"),
    ],
)
def test_what_does_not_fit_is_refused(changes: Any, message: str, tmp_path: Path) -> None:
    make(tmp_path / "base")
    scorer = scorer_of(tmp_path / "base")
    with pytest.raises(EvaluationError, match=message):
        prepare(scorer, tmp_path, **changes).score(scorer)


@pytest.mark.parametrize("texts", [[], ["a", None]])
def test_texts_must_be_there(texts: Any, tmp_path: Path) -> None:
    make(tmp_path / "base")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(LABELS))})
    rows = datasets.Dataset.from_dict({"text": texts, "label": [0] * len(texts)}, features=features)
    with pytest.raises(EvaluationError, match=r"no examples|row 1 has no text"):
        prepare(scorer_of(tmp_path / "base"), tmp_path, rows)


def test_a_base_without_a_head_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "base", "BertModel")
    save_tokenizer(tmp_path / "base")
    with pytest.raises(EvaluationError, match=r"lacks the tensor 'classifier\.bias'"):
        scorer_of(tmp_path / "base")


def test_a_base_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "base", BERT, id2label=NAMES["id2label"], label2id=NAMES["label2id"])
    with pytest.raises(EvaluationError, match="has no tokenizer"):
        scorer_of(tmp_path / "base")


def test_heads_and_classes() -> None:
    assert find_head_rows(None, 2, ["a", "b"], "x") == (0, 1)
    assert find_head_rows(["Not good", "good"], 2, ["good", "not_good"], "x") == (1, 0)
    with pytest.raises(EvaluationError, match="2 classes, the base model's head has 3 classes without names"):
        find_head_rows(None, 3, ["a", "b"], "x")
    with pytest.raises(EvaluationError, match="has 2 classes named 'a'"):
        find_head_rows(["a", "A"], 2, ["a", "b"], "x")
