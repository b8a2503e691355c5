"""Retrieval tasks whose judgements are in a repo of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import yaml
from huggingface_hub import HfApi

from hubmerge.support.text import short_commit
from tests.evaluation.embedders import embedders, recipe

__all__ = ["embedders"]  # a fixture

Command = Callable[..., tuple[int, str, str]]


def beir_folders(root: Path) -> tuple[Path, Path]:
    """Write a data set as BEIR's repos on the Hub: documents and queries in one, the pairs in another."""
    documents, pairs = root / "scifact", root / "scifact-qrels"
    parts = {
        "corpus": {"_id": list("123"), "title": ["cat", "", "sun"], "text": ["dog", "sun mat", "bird"]},
        "queries": {"_id": ["7", "8", "9"], "text": ["cat cat", "sun", "mat"]},
    }
    lines = []
    for name, columns in parts.items():
        (documents / name).mkdir(parents=True)
        datasets.Dataset.from_dict(columns).to_parquet(documents / name / "part.parquet")
        lines += [f"- config_name: {name}", f"  data_files: [{{split: {name}, path: {name}/part.parquet}}]"]
    text = "\n".join(["---", "license: cc-by-4.0", "configs:", *lines, "---", ""])
    (documents / "README.md").write_text(text)
    pairs.mkdir()
    (pairs / "test.tsv").write_text("query-id\tcorpus-id\tscore\n7\t1\t1\n8\t2\t1\n8\t3\t0\n")
    (pairs / "README.md").write_text("---\nlicense: cc-by-sa-4.0\n---\n")
    return documents, pairs


def test_pairs_in_a_repo_of_their_own(
    hubmerge: Command, embedders: Path, tmp_path: Path, repo_name: Callable[..., str]
) -> None:
    api, names, commits = HfApi(), [], []
    for folder in beir_folders(tmp_path):
        names.append(repo_name(folder.name))
        api.create_repo(names[-1], repo_type="dataset")
        commits.append(api.upload_folder(repo_id=names[-1], repo_type="dataset", folder_path=folder).oid)
    source = {"path": names[0], "corpus": "corpus", "qrels": names[1]}
    task = {"name": "scifact", "kind": "text-retrieval", "dataset": source, "model": "one"}
    target = repo_name("retriever")
    path = recipe(embedders, tmp_path, task, publish={"repo": target, "license": "mit"})
    out = tmp_path / "out"
    status, output, errors = hubmerge("run", path, "--out", out)
    assert status == 0, output + errors
    lock = yaml.safe_load((out / "hubmerge.lock.yaml").read_text())
    assert [(one["path"], one["commit"]) for one in lock["datasets"]] == list(zip(names, commits, strict=True))
    report = json.loads((out / "hubmerge.json").read_text())
    (scored,) = report["tasks"]
    assert (report["version"], scored["examples"], scored["commit"]) == (7, 2, commits[0])
    (pairs,) = scored["more_data"]
    assert (pairs["path"], pairs["commit"]) == (names[1], commits[1])
    assert [one["licenses"][0]["identifiers"] for one in (scored, pairs)] == [["cc-by-4.0"], ["cc-by-sa-4.0"]]
    card = (out / "README.md").read_text()
    assert f" at `{short_commit(commits[0])}` with [" in card
    assert f"/datasets/{names[1]}/tree/{commits[1]}) at `{short_commit(commits[1])}`" in card
    status, output, errors = hubmerge("verify", target)
    assert status == 0, output + errors
    assert "2 data sets at the locked commits" in output
    bill = json.loads((out / "hubmerge.cdx.json").read_text())
    assert {one["version"] for one in bill["components"] if one["type"] == "data"} == set(commits)

    api.upload_file(path_or_fileobj=b"more", path_in_repo="new.md", repo_id=names[1], repo_type="dataset")
    _, output, _ = hubmerge("outdated", path)
    assert names[1] in output
    assert names[0] not in output


def test_a_read_out_is_chosen_on_pairs_in_a_repo_of_their_own(
    hubmerge: Command, embedders: Path, tmp_path: Path, repo_name: Callable[..., str]
) -> None:
    documents, pairs = beir_folders(tmp_path)
    name = repo_name(pairs.name)
    api = HfApi()
    api.create_repo(name, repo_type="dataset")
    commit = api.upload_folder(repo_id=name, repo_type="dataset", folder_path=pairs).oid
    source = {"path": str(documents), "corpus": "corpus", "qrels": name}
    task = {"name": "held-out", "kind": "text-retrieval", "dataset": source, "validation": True}
    choose = [{"method": "wudi", "parameters": {"ridge": ridge}} for ridge in (0.1, 0.5)]
    read = {"choose": choose, "on": "held-out"}
    out = tmp_path / "out"
    status, output, errors = hubmerge(
        "run", recipe(embedders, tmp_path, task, merge_method="wudi", read=read), "--out", out
    )
    assert status == 0, output + errors
    report = json.loads((out / "hubmerge.json").read_text())
    assert (report["version"], report["tasks"]) == (7, [])
    assert report["steps"][-1]["read"]["more_data"] == [{"path": name, "commit": commit}]
    bill = json.loads((out / "hubmerge.cdx.json").read_text())
    assert commit in {one["version"] for one in bill["components"] if one["type"] == "data"}
    status, output, errors = hubmerge("verify", out)
    assert status == 0, output + errors


def test_mistakes_of_the_second_repo(hubmerge: Command, embedders: Path, tmp_path: Path) -> None:
    documents, pairs = beir_folders(tmp_path)
    source = {"path": str(documents), "corpus": "corpus", "qrels": str(pairs)}
    task = {"name": "a", "kind": "text-retrieval", "dataset": source}
    status, output, errors = hubmerge("plan", recipe(embedders, tmp_path, task))
    assert status == 0, errors
    assert "a 3" in output
    wrong: list[tuple[dict[str, Any], str, str]] = [
        ({"qrels": "./nothing"}, "tasks[0].dataset.qrels: ", "hint: a local dataset is a folder"),
        ({"qrels": "me/x@main"}, "tasks[0].dataset.qrels: ", "write `qrels_revision: ...` beside the path"),
        ({"qrels_revision": "main"}, "qrels_revision needs `qrels`", "remove the key qrels_revision"),
        ({"corpus": None}, "`corpus` is missing", "add the configuration with all documents"),
        ({"split": "tests"}, "tasks[0].dataset.split: ", "did you mean"),
        ({"qrels": "nobody/nothing-here"}, "tasks[0].dataset.qrels: ", "check the spelling"),
    ]
    for keys, place, cause in wrong:
        path = recipe(embedders, tmp_path, {**task, "dataset": {**source, **keys}})
        status, output, errors = hubmerge("plan", path)
        assert status in {2, 3}, output  # 3: what the Hub does not have
        assert place in errors
        assert cause in errors
    path = recipe(embedders, tmp_path, {**task, "kind": "causal-lm"})
    status, _, errors = hubmerge("check", path)
    assert status == 2
    assert "qrels is a key of the kind text-retrieval" in errors
