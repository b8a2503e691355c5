"""Tasks of embedders: what transformers gives for the merged model, with the modules and prompts of the repo."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from scipy.stats import spearmanr

from hubmerge.checkpoints import open_checkpoint
from hubmerge.errors import EvaluationError
from hubmerge.evaluation import task_kind_named
from hubmerge.evaluation.base_files import BaseFiles, check_embedder, check_entailment
from merge_recipes import Task
from tests.evaluation.embedders import PROMPTS, embedders, recipe
from tests.evaluation.small_text import save_tokenizer, sentences
from tests.evaluation.test_own_heads import BERT, save

__all__ = ["embedders"]  # a fixture

Command = Callable[..., tuple[int, str, str]]


def prepared(kind: str, base: Path, rows: Any, **keys: Any) -> tuple[Any, Any]:
    task = Task.model_validate_json(json.dumps({"name": "x", "kind": kind, "dataset": {"path": "me/x"}, **keys}))
    task_kind: Any = task_kind_named(kind)
    scorer = task_kind.open_scorer(base, open_checkpoint(base, base.name), identity="0" * 40)
    return scorer, task_kind.prepare(task, rows, scorer, base / "cache", dataset_commit=None, batch_size=5)


def own_embeddings(folder: Path, texts: list[str], prompt: str = "") -> np.ndarray:
    """Return the state of the first token, as transformers gives it."""
    model: Any = transformers.BertModel.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = []
    with torch.no_grad():
        for text in texts:
            tokens = tokenizer(prompt + text, return_tensors="pt", truncation=True, max_length=16)
            found.append(model(input_ids=tokens["input_ids"]).last_hidden_state[0, 0])
    return torch.stack(found).numpy()


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first * second).sum(-1) / np.linalg.norm(first, axis=-1) / np.linalg.norm(second, axis=-1)


def test_similarity_is_the_rank_correlation_of_cosines(embedders: Path) -> None:
    rows = datasets.Dataset.from_parquet(str(embedders / "sts" / "test.parquet"))
    scorer, task = prepared("sentence-similarity", embedders / "base", rows, metrics=["spearman", "pearson"])
    assert task.examples == 24
    for name in ("base", "one"):
        scorer.load(open_checkpoint(embedders / name, name))
        first, second = (own_embeddings(embedders / name, rows[f"sentence{number}"]) for number in (1, 2))
        wanted = spearmanr(cosines(first, second), rows["score"]).statistic
        assert task.score(scorer)["spearman"] == pytest.approx(wanted, abs=1e-6)
    assert set(task.score(scorer)) == {"spearman", "pearson"}


def test_scores_that_are_all_equal_have_no_correlation(embedders: Path) -> None:
    rows = datasets.Dataset.from_dict({"sentence1": ["a cat", "sun"], "sentence2": ["dog", "mat"], "score": [1.0, 1.0]})
    scorer, task = prepared("sentence-similarity", embedders / "base", rows)
    with pytest.raises(EvaluationError, match="'spearman' is nan"):
        task.score(scorer)


def ndcg(similarities: np.ndarray, relevant: list[set[int]]) -> float:
    values = []
    for row, hits in zip(similarities, relevant, strict=True):
        order = np.argsort(-row, kind="stable")[:10]
        gain = sum(1 / np.log2(rank + 2) for rank, one in enumerate(order) if int(one) in hits)
        values.append(gain / sum(1 / np.log2(rank + 2) for rank in range(min(10, len(hits)))))
    return float(np.mean(values))


def test_retrieval_ranks_all_documents_with_the_prompts_of_the_repo(embedders: Path) -> None:
    asked, found = sentences(6, 3), sentences(15, 4)
    pairs = [(query, 2 * number) for number, query in enumerate(asked)] + [(asked[0], 13)]
    rows = datasets.Dataset.from_dict(
        {"query": [query for query, _ in pairs], "positive": [found[number] for _, number in pairs]}
    )
    scorer, task = prepared("text-retrieval", embedders / "base", lambda _: rows, metrics=["ndcg@10", "recall@10"])
    documents = list(dict.fromkeys(rows["positive"]))
    pairs_of = list(zip(rows["query"], rows["positive"], strict=True))
    relevant = [{documents.index(text) for one, text in pairs_of if one == query} for query in asked]
    # The repo compares by dot products, and has prompts for queries and documents.
    similarities = (
        own_embeddings(embedders / "base", asked, PROMPTS["query"])
        @ own_embeddings(embedders / "base", documents, PROMPTS["document"]).T
    )
    assert (task.examples, len(task.corpus)) == (6, len(documents))
    assert task.score(scorer)["ndcg@10"] == pytest.approx(ndcg(similarities, relevant), abs=1e-6)


def test_retrieval_reads_the_form_of_beir(embedders: Path) -> None:
    corpus = datasets.Dataset.from_dict({"_id": list("123"), "title": ["a", "", "b"], "text": ["cat", "dog", "sun"]})
    queries = datasets.Dataset.from_dict({"_id": ["x", "y", "z"], "text": ["cat cat", "sun", "mat"]})
    qrels = datasets.Dataset.from_dict({"query-id": ["x", "x", "y"], "corpus-id": ["1", "2", "3"], "score": [1, 0, 2]})
    parts = {"corpus": corpus, "queries": queries}
    source = {"path": "me/x", "corpus": "corpus"}
    _, task = prepared("text-retrieval", embedders / "base", lambda one: parts.get(one.name, qrels), dataset=source)
    assert task.corpus == {"1": "a cat", "2": "dog", "3": "b sun"}
    assert (task.queries, task.relevant) == ({"x": "cat cat", "y": "sun"}, {"x": {"1"}, "y": {"3"}})
    parts["queries"] = queries.rename_column("_id", "number")
    with pytest.raises(EvaluationError, match="queries: no column _id or id in the dataset; its columns: number, text"):
        prepared("text-retrieval", embedders / "base", lambda one: parts.get(one.name, qrels), dataset=source)
    parts |= {"corpus": corpus.select([0, 1]), "queries": queries}
    with pytest.raises(EvaluationError, match="the split names '3', which is not in corpus"):
        prepared("text-retrieval", embedders / "base", lambda one: parts.get(one.name, qrels), dataset=source)


def test_an_embedder_classifies_by_sentences_of_the_classes(embedders: Path) -> None:
    texts = sentences(9, 5)
    rows = datasets.Dataset.from_dict(
        {"text": texts, "label": [number % 2 for number in range(9)]},
        features=datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["cat", "dog"])}
        ),
    )
    scorer, task = prepared("zero-shot-text-classification", embedders / "base", rows, prompts=["the {}", "in {}"])
    classes = []
    for name in ("cat", "dog"):
        found = own_embeddings(embedders / "base", [f"the {name}", f"in {name}"])
        classes.append((found / np.linalg.norm(found, axis=1, keepdims=True)).mean(0))
    wanted = cosines(own_embeddings(embedders / "base", texts)[:, None], np.stack(classes)[None])
    np.testing.assert_allclose(task.logits(scorer), wanted, atol=1e-5)


def test_a_model_for_inference_classifies_by_entailment(tmp_path: Path) -> None:
    model = save(tmp_path / "nli", "BertForSequenceClassification", {**BERT, "max_position_embeddings": 24}, 0,
                 ("contradiction", "entailment", "neutral"))  # fmt: skip
    save_tokenizer(tmp_path / "nli")
    texts = sentences(6, 5)
    rows = datasets.Dataset.from_dict({"text": texts, "label": ["dog", "cat"] * 3})
    scorer, task = prepared("zero-shot-text-classification", tmp_path / "nli", rows)
    assert task.prompts == ("This example is {}.",)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "nli")
    with torch.no_grad():
        wanted = [
            [float(model(**tokenizer(text, f"This example is {name}.", return_tensors="pt")).logits[0, 1])
             for name in ("cat", "dog")] for text in texts
        ]  # fmt: skip
    np.testing.assert_allclose(task.logits(scorer), np.array(wanted), rtol=1e-3, atol=1e-4)


def test_an_embedder_without_its_package_is_found_before_the_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    base = BaseFiles("base", {"architectures": ["BertModel"]}, frozenset())
    check_embedder(base)
    check_entailment(base)
    with pytest.raises(EvaluationError, match="a BertForTokenClassification without a class 'entailment'"):
        check_entailment(BaseFiles("base", {"architectures": ["BertForTokenClassification"]}, frozenset()))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EvaluationError, match="sentence-transformers is not installed") as caught:
        check_embedder(base)
    assert caught.value.hint == "pip install 'hubmerge[eval]'"


def test_a_stream_of_embedders_is_scored(
    hubmerge: Command, embedders: Path, tmp_path: Path, repo_name: Callable[..., str]
) -> None:
    task = {"name": "sts", "kind": "sentence-similarity", "dataset": {"path": str(embedders / "sts")}, "model": "one"}
    repo = repo_name("embedder")
    path = recipe(embedders, tmp_path, task, publish={"repo": repo, "license": "mit"})
    status, output, errors = hubmerge("plan", path)
    assert status == 0, errors
    assert "evaluate 1 task, 24 examples: sts 24" in output
    status, output, errors = hubmerge("run", path, "--out", tmp_path / "out")
    assert status == 0, errors
    report = json.loads((tmp_path / "out" / "hubmerge.json").read_text())
    assert report["tasks"][0]["metrics"] == ["spearman"]
    rows = datasets.Dataset.from_parquet(str(embedders / "sts" / "test.parquet"))
    values = load_file(tmp_path / "out" / "model.safetensors")
    assert values
    first, second = (own_embeddings(tmp_path / "out", rows[f"sentence{number}"]) for number in (1, 2))
    wanted = spearmanr(cosines(first, second), rows["score"]).statistic
    assert report["steps"][-1]["scores"]["sts"]["spearman"] == pytest.approx(wanted, abs=1e-6)
    assert set(report["base_scores"]["sts"]) == set(report["own_scores"]["sts"]) == {"spearman"}
    status, output, errors = hubmerge("verify", repo)
    assert status == 0, output + errors


def test_mistakes_of_the_columns_are_found_by_plan(hubmerge: Command, embedders: Path, tmp_path: Path) -> None:
    source = {"path": str(embedders / "sts")}
    path = recipe(
        embedders,
        tmp_path,
        {"name": "a", "kind": "sentence-similarity", "dataset": {**source, "score": "sentence1"}},
        {"name": "b", "kind": "sentence-similarity", "dataset": {**source, "sentence2": "other"}},
        {"name": "c", "kind": "text-retrieval", "dataset": source, "metrics": ["accuracy"]},
        {"name": "d", "kind": "text-retrieval", "dataset": {**source, "corpus": "documents"}},
    )
    status, output, errors = hubmerge("plan", path)
    assert status == 2, output
    assert "tasks[0].dataset.score: " in errors
    assert "not numbers" in errors
    assert "tasks[3].dataset.corpus: " in errors
    assert "set `dataset: {corpus: ...}` to the configuration that holds them" in errors
    assert "no sentence2 column 'other' in the dataset" in errors
    assert "no query column 'query' in the dataset" in errors
    assert "text-retrieval has no metric 'accuracy'" in errors
