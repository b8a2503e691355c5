"""Mistakes in the rows of judgements that are in a repo of their own, and changes of the data of scored tasks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from hubmerge.plan.samples import data_error
from hubmerge.report.inputs import DataReport, TaskReport
from merge_recipes import Task
from tests.evaluation.embedders import embedders, recipe
from tests.evaluation.test_second_repo import beir_folders

__all__ = ["embedders"]  # a fixture

Command = Callable[..., tuple[int, str, str]]


def test_a_wrong_id_names_the_repo_of_the_judgements(
    hubmerge: Command, embedders: Path, tmp_path: Path, repo_name: Callable[..., str]
) -> None:
    documents, pairs = beir_folders(tmp_path)
    (pairs / "test.tsv").write_text("query-id\tcorpus-id\tscore\n7\t1\t1\n8\t99\t1\n")
    name = repo_name(pairs.name)
    HfApi().create_repo(name, repo_type="dataset")
    commit = HfApi().upload_folder(repo_id=name, repo_type="dataset", folder_path=pairs).oid
    source = {"path": str(documents), "corpus": "corpus", "qrels": name}
    path = recipe(embedders, tmp_path, {"name": "a", "kind": "text-retrieval", "dataset": source})
    status, output, _ = hubmerge("run", path, "--json")
    error = json.loads(output.splitlines()[-1])
    assert (status, error["repo"], error["commit"]) == (2, name, commit)
    assert f"tasks[0].dataset.qrels: task a, {name}, split test: the split names '99'" in error["message"]


def test_columns_of_the_judgements_name_their_folder(hubmerge: Command, embedders: Path, tmp_path: Path) -> None:
    documents, pairs = beir_folders(tmp_path)
    (pairs / "test.tsv").write_text("query\tcorpus-id\tscore\n7\t1\t1\n")
    source = {"path": str(documents), "corpus": "corpus", "qrels": str(pairs)}
    status, _, errors = hubmerge(
        "plan", recipe(embedders, tmp_path, {"name": "a", "kind": "text-retrieval", "dataset": source})
    )
    assert status == 2
    assert f"tasks[0].dataset.qrels: task a, {pairs}, split test: no column query-id or query_id" in errors


def test_a_scored_task_keeps_its_data(hubmerge: Command, embedders: Path, tmp_path: Path) -> None:
    documents, pairs = beir_folders(tmp_path)
    source = {"path": str(documents), "corpus": "corpus", "qrels": str(pairs)}
    task = {"name": "a", "kind": "text-retrieval", "dataset": source, "model": "one"}
    models = [{"model": str(embedders / name), "name": name} for name in ("one", "two")]
    status, output, errors = hubmerge("run", recipe(embedders, tmp_path, task, models=models[:1]))
    assert status == 0, output + errors
    (pairs / "test.tsv").write_text("query-id\tcorpus-id\tscore\n7\t2\t1\n")
    status, output, errors = hubmerge("run", recipe(embedders, tmp_path, task, models=models))
    assert status == 2, output + errors
    assert "tasks[0].dataset.qrels: task a: the steps so far were scored on the judgements of " in errors
    assert "hint: restore the data set of the task, or give the task another name" in errors


def retrieval(**dataset: Any) -> Task:
    source = {"path": "me/texts", "corpus": "corpus", **dataset}
    return Task.model_validate({"name": "a", "kind": "text-retrieval", "dataset": source})


def test_what_counts_as_other_data() -> None:
    texts, pairs = "1" * 40, "2" * 40
    alone = TaskReport("a", "text-retrieval", 1, "me/texts", commit=texts)
    beside = TaskReport("a", "text-retrieval", 1, "me/texts", commit=texts, more_data=(DataReport("me/pairs", pairs),))
    task = retrieval(qrels="me/pairs")
    assert data_error(task, [texts, pairs], [beside]) is None
    assert data_error(retrieval(qrels="me/moved"), [texts, pairs], [beside]) is None
    assert data_error(task, [texts, "3" * 40], []) is None
    wrong: list[tuple[Task, list[str], TaskReport, str, str]] = [
        (task, [texts, "3" * 40], beside, "qrels", "the judgements of me/pairs at 222222222222, the recipe has "),
        (task, ["3" * 40, pairs], beside, "path", "me/texts at 111111111111, the recipe has me/texts at 333333333333"),
        (retrieval(), [texts], beside, "qrels", "the recipe has the judgements beside the documents"),
        (task, [texts, pairs], alone, "qrels", "scored on the judgements beside the documents, the recipe has "),
        (retrieval(split="dev"), [texts], alone, "split", "scored on split test, the recipe has split dev: "),
        (retrieval(name="x"), [texts], alone, "name", "scored on split test, the recipe has split test of x: "),
    ]
    for changed, commits, recorded, key, cause in wrong:
        found = data_error(changed, commits, [recorded])
        assert found is not None
        assert found[0] == (key,)
        assert cause in found[1].message
