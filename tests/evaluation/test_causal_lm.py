from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers

from hubmerge.errors import EvaluationError
from hubmerge.evaluation import task_kind_named
from hubmerge.evaluation.metrics import shipped_metric
from hubmerge.report.report import TaskReport, main_metric
from merge_recipes import Task
from tests.evaluation.small_text import opened, save_model, save_tokenizer, sentences

KIND = task_kind_named("causal-lm")
FAMILIES = ["GPT2LMHeadModel", "LlamaForCausalLM", "MixtralForCausalLM"]
TEXTS = [*sentences(23, seed=4), "the cat sits on the mat " * 5]


def make(folder: Path, kind: str, seed: int = 0) -> Any:
    tied = {} if kind.startswith("GPT2") else {"tie_word_embeddings": False}
    model = save_model(folder, kind, seed, **tied, **({"num_local_experts": 2} if kind.startswith("Mixtral") else {}))
    return model, save_tokenizer(folder, pads=False, around=kind != "LlamaForCausalLM")


def prepare(
    scorer: Any,
    cache: Path,
    texts: Any = TEXTS,
    metrics: Any = ("accuracy", "perplexity"),
    column: str = "text",
    **changes: Any,
) -> Any:
    fields = {"name": "x", "kind": KIND.name, "dataset": {"path": "me/texts", "text": column}, "metrics": [*metrics]}
    task = Task.model_validate_json(json.dumps({**fields, **changes}))
    rows = datasets.Dataset.from_dict({column: texts}, features=datasets.Features({column: datasets.Value("string")}))
    return KIND.prepare(task, rows, scorer, cache, dataset_commit=None, batch_size=4)


def scorer_of(folder: Path) -> Any:
    return KIND.open_scorer(folder, opened(folder), identity="0" * 40)


@torch.no_grad()
def expected(model: Any, tokenizer: Any, texts: Any) -> dict[str, float]:
    """One piece of one text at a time, through the loss that transformers computes."""
    losses, hits, count = 0.0, 0, 0
    for text in texts:
        tokens = tokenizer(text)["input_ids"]
        for begin in range(0, len(tokens), 12):
            piece = torch.tensor([tokens[begin : begin + 12]])
            if piece.shape[1] < 2:
                continue
            output = model(input_ids=piece, labels=piece)
            losses += float(output.loss) * (piece.shape[1] - 1)
            hits += int((output.logits[0, :-1].argmax(-1) == piece[0, 1:]).sum())
            count += piece.shape[1] - 1
    return {"accuracy": hits / count, "perplexity": math.exp(losses / count)}


@pytest.mark.parametrize("kind", FAMILIES)
def test_it_gives_what_transformers_gives(kind: str, tmp_path: Path) -> None:
    base, tokenizer = make(tmp_path / "base", kind)
    other, _ = make(tmp_path / "other", kind, seed=1)
    scorer = scorer_of(tmp_path / "base")
    prepared = prepare(scorer, tmp_path)
    assert (prepared.examples, prepared.class_names) == (24, ())
    for model, folder in ((base, "base"), (other, "other"), (base, "base")):
        scorer.load(opened(tmp_path / folder))
        assert prepared.score(scorer) == pytest.approx(expected(model, tokenizer, TEXTS), rel=1e-4)


def test_a_state_dict_as_it_is_in_memory_is_known(tmp_path: Path) -> None:
    make(tmp_path / "base", "GPT2LMHeadModel")
    other, tokenizer = make(tmp_path / "other", "GPT2LMHeadModel", seed=2)
    (tmp_path / "other" / "model.safetensors").unlink()
    torch.save(other.state_dict(), tmp_path / "other" / "pytorch_model.bin")
    scorer = scorer_of(tmp_path / "base")
    scorer.load(opened(tmp_path / "other"))
    assert prepare(scorer, tmp_path).score(scorer) == pytest.approx(expected(other, tokenizer, TEXTS), rel=1e-4)


def test_accuracy_is_always_taken(tmp_path: Path) -> None:
    make(tmp_path / "base", "GPT2LMHeadModel")
    scorer = scorer_of(tmp_path / "base")
    assert set(prepare(scorer, tmp_path, metrics=["perplexity"]).score(scorer)) == {"accuracy", "perplexity"}
    assert set(prepare(scorer, tmp_path, metrics=["accuracy"]).score(scorer)) == {"accuracy"}


def test_perplexity_never_stands_in_the_matrix() -> None:
    task = TaskReport("x", "causal-lm", 1, "me/texts", metrics=("perplexity",))
    assert task.main_metric == "accuracy"
    assert main_metric(["perplexity", "f1"]) == "f1"
    assert main_metric(["confusion"]) == "accuracy"


def test_a_model_that_knows_nothing_has_the_vocabulary_as_its_perplexity(tmp_path: Path) -> None:
    make(tmp_path / "base", "GPT2LMHeadModel")
    scorer = scorer_of(tmp_path / "base")
    with torch.no_grad():
        scorer.model.transformer.wte.weight.zero_()
    score = prepare(scorer, tmp_path, metrics=["perplexity"]).score(scorer)
    assert score["perplexity"] == pytest.approx(scorer.token_count)


def test_the_metric_by_itself(tmp_path: Path) -> None:
    metric = shipped_metric("perplexity", tmp_path)
    assert metric is not None
    values = np.log([0.5, 0.25, 0.125])
    assert metric.compute(log_probabilities=values) == {"perplexity": pytest.approx(4.0)}


def test_the_batch_size_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "base", "GPT2LMHeadModel")
    scorer = scorer_of(tmp_path / "base")
    prepared = prepare(scorer, tmp_path)
    whole = prepared.score(scorer)
    monkeypatch.setattr("hubmerge.evaluation.causal_lm.MOST_VALUES", 1)
    assert prepared.score(scorer) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": ["f1"]}, "causal-lm has no metric 'f1'"),
        ({"prompts": ["{}"]}, "causal-lm has no prompts"),
        ({"class_names": ["a", "b"]}, "causal-lm has no classes"),
        ({"texts": ["cat", "dog"]}, "every text has fewer than 2 tokens"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(changes: Any, message: str, tmp_path: Path) -> None:
    make(tmp_path / "base", "LlamaForCausalLM")
    with pytest.raises(EvaluationError, match=message):
        prepare(scorer_of(tmp_path / "base"), tmp_path, **changes)


def test_values_that_are_not_finite_are_told(tmp_path: Path) -> None:
    make(tmp_path / "base", "GPT2LMHeadModel")
    scorer = scorer_of(tmp_path / "base")
    prepared = prepare(scorer, tmp_path)
    with torch.no_grad():
        scorer.model.transformer.ln_f.bias[0] = torch.inf
    with pytest.raises(EvaluationError, match="not finite"):
        prepared.score(scorer)


def test_a_base_of_another_kind_is_refused(tmp_path: Path) -> None:
    transformers.CLIPVisionConfig().save_pretrained(tmp_path / "base")
    save_tokenizer(tmp_path / "base")
    make(tmp_path / "other", "GPT2LMHeadModel")
    with pytest.raises(EvaluationError, match="cannot be loaded for a task of the kind causal-lm"):
        KIND.open_scorer(tmp_path / "base", opened(tmp_path / "other"), identity="0" * 40)


def test_heads_of_their_own_are_scored_beside_tied_ones(tmp_path: Path) -> None:
    tied, tokenizer = make(tmp_path / "tied", "GPT2LMHeadModel")
    untied = save_model(tmp_path / "untied", "GPT2LMHeadModel", 1, tie_word_embeddings=False)
    for base in ("tied", "untied"):
        save_tokenizer(tmp_path / base, pads=False, around=True)
        scorer = scorer_of(tmp_path / base)
        prepared = prepare(scorer, tmp_path / f"cache {base}")
        for model, folder in ((untied, "untied"), (tied, "tied"), (untied, "untied")):
            scorer.load(opened(tmp_path / folder), check_frozen=False)
            assert prepared.score(scorer) == pytest.approx(expected(model, tokenizer, TEXTS), rel=1e-5)
