"""Groups of lm-evaluation-harness over several data sets and splits: run, verified, resumed, and out of date."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from huggingface_hub import HfApi

from tests.evaluation.small_text import save_model, save_tokenizer, sentences

Command = Callable[..., tuple[int, str, str]]
LAMBADA = ("EleutherAI/lambada_openai", "cimec/lambada")
DARIJA = "MBZUAI-Paris/DarijaBench"
SIZES = {"mac": 4, "msac": 9, "msda": 2, "electro_maroc": 5, "myc": 3}
FEELINGS = ("ايجابي", "سلبي", "ماكينش إحساس")


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Publish tiny Llama models and the data sets of two groups of the harness, and return the commits."""
    root, client, commits = tmp_path_factory.mktemp("groups"), HfApi(), {}
    for seed, name in enumerate(("base", "first", "second")):
        save_model(root / name, "LlamaForCausalLM", seed, max_position_embeddings=48, tie_word_embeddings=False)
        save_tokenizer(root / name, around=False)
    folders = {f"crowd/{name}": root / name for name in ("base", "first", "second")}
    for seed, name in enumerate(LAMBADA, start=7):
        folders[name] = root / f"lambada-{seed}"
        for split in ("test", "validation"):
            rows = datasets.Dataset.from_dict({"text": sentences(seed, seed=seed)})
            rows.to_parquet(folders[name] / f"{split}.parquet")
    folders[DARIJA] = root / "darija"
    write_feelings(folders[DARIJA])
    for name, folder in folders.items():
        kind = "model" if name.startswith("crowd/") else "dataset"
        client.create_repo(name, repo_type=kind, exist_ok=True)
        commits[name] = client.upload_folder(repo_id=name, folder_path=folder, repo_type=kind).oid
    return commits


def write_feelings(folder: Path) -> None:
    """Write the five splits of the nested group."""
    lines = []
    for seed, (split, count) in enumerate(SIZES.items()):
        texts = sentences(count, seed=20 + seed)
        said = [[{"content": text}, {"content": FEELINGS[row % 3]}] for row, text in enumerate(texts)]
        datasets.Dataset.from_dict({"messages": said}).to_parquet(folder / f"{split}.parquet")
        lines.append(f"  - {{split: {split}, path: {split}.parquet}}")
    card = ["---", "license: cc-by-4.0", "configs:", "- config_name: default", "  data_files:", *lines, "---", ""]
    (folder / "README.md").write_text("\n".join(card), encoding="utf-8")


def recipe_of(folder: Path, tasks: list[dict[str, Any]], **keys: Any) -> Path:
    path = folder / "recipe.yaml"
    recipe = {
        "merge_method": "task_arithmetic",
        "form": "stream",
        "base_model": "crowd/base",
        "models": [{"model": "crowd/first", "name": "first"}, {"model": "crowd/second", "name": "second"}],
        "parameters": {"weight": 0.5},
        "evaluate": {"tasks": tasks},
        **keys,
    }
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


LIMIT = 4
TAG = {"name": "first", "kind": "lm-eval", "task": "lambada"}
NESTED = {"name": "second", "kind": "lm-eval", "task": "darija_sentiment", "limit": LIMIT, "num_fewshot": 0}


def test_groups_are_published_with_all_their_data_and_verified(
    repos: dict[str, str], hubmerge: Command, tmp_path: Path, repo_name: Callable[..., str]
) -> None:
    target, out = repo_name("grouped"), tmp_path / "out"
    path = recipe_of(tmp_path, [TAG, NESTED], publish={"repo": target, "license": "mit"})
    status, output, errors = hubmerge("plan", path)
    assert status == 0, errors
    assert "2 tasks, 32 examples: first 15, second 17 of 23" in output
    status, output, errors = hubmerge("run", path, "--out", out)
    assert status == 0, output + errors
    lock = yaml.safe_load((out / "hubmerge.lock.yaml").read_text(encoding="utf-8"))
    data = [*LAMBADA, DARIJA]
    assert {one["path"]: one["commit"] for one in lock["datasets"]} == {name: repos[name] for name in data}
    report = json.loads((out / "hubmerge.json").read_text(encoding="utf-8"))
    tag, nested = report["tasks"]
    assert (report["version"], tag["examples"], nested["examples"]) == (8, 15, 17)
    assert tag["more_data"] == [{"path": LAMBADA[1], "commit": repos[LAMBADA[1]], "licenses": [{}], "split": "test"}]
    assert {nested["split"], *(one["split"] for one in nested["more_data"])} == set(SIZES)
    assert {one["commit"] for one in nested["more_data"]} == {repos[DARIJA]}
    check_scores(report["steps"][-1]["scores"])
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f"`default/test` at `{repos[LAMBADA[0]][:12]}` with [`{LAMBADA[1]}`]" in card
    assert "`electro_maroc` at" in card
    assert "and `mac` and `msac` and `msda` and `myc`" in card
    bill = json.loads((out / "hubmerge.cdx.json").read_text(encoding="utf-8"))
    assert {one["version"] for one in bill["components"] if one["type"] == "data"} == {repos[name] for name in data}
    status, output, errors = hubmerge("verify", target)
    assert status == 0, output + errors
    assert "its licenses are those in the cards of 3 data sets at the locked commits" in output


def check_scores(scores: dict[str, dict[str, float]]) -> None:
    """Check that a tag has the mean of its tasks, and the group the mean over all examples, as it asks for."""
    tag, nested = scores["first"], scores["second"]
    assert tag["acc"] == pytest.approx((tag["acc/lambada_openai"] + tag["acc/lambada_standard"]) / 2)
    sizes = {name: min(size, LIMIT) for name, size in SIZES.items()}
    names = {name: f"acc/darija_sentiment_{name.replace('electro_maroc', 'electrom')}" for name in sizes}
    right = sum(size * nested[names[name]] for name, size in sizes.items())
    assert nested["acc"] == pytest.approx(right / sum(sizes.values()))
    assert nested["acc_stderr"] > 0


def test_a_stream_keeps_the_commits_of_all_data_sets(
    repos: dict[str, str], hubmerge: Command, tmp_path: Path, repo_name: Callable[..., str]
) -> None:
    keys: dict[str, Any] = {"publish": {"repo": repo_name("kept"), "license": "mit"}}
    models = [{"model": "crowd/first", "name": "first"}, {"model": "crowd/second", "name": "second"}]
    assert hubmerge("run", recipe_of(tmp_path, [TAG], models=models[:1], **keys))[0] == 0
    rows = datasets.Dataset.from_dict({"text": sentences(3, seed=99)})
    rows.to_parquet(tmp_path / "test.parquet")
    changed = HfApi().upload_file(
        path_or_fileobj=tmp_path / "test.parquet",
        path_in_repo="test.parquet",
        repo_id=LAMBADA[1],
        repo_type="dataset",
    )
    path = recipe_of(tmp_path, [TAG], models=models, **keys)
    _, output, _ = hubmerge("outdated", path)
    assert LAMBADA[1] in output
    assert LAMBADA[0] not in output
    status, output, errors = hubmerge("run", path, "--out", tmp_path / "resumed")
    assert status == 0, output + errors
    assert scored_on(tmp_path / "resumed") == (15, repos[LAMBADA[1]], 2)
    assert hubmerge("verify", keys["publish"]["repo"])[0] == 0
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    status, output, errors = hubmerge("run", recipe_of(fresh, [TAG]), "--out", fresh / "out")
    assert status == 0, output + errors
    assert scored_on(fresh / "out") == (10, changed.oid, 2)


def scored_on(folder: Path) -> tuple[int, str, int]:
    """Return the examples of the task, the commit of its second data set, and the number of steps."""
    report = json.loads((folder / "hubmerge.json").read_text(encoding="utf-8"))
    (task,) = report["tasks"]
    return task["examples"], task["more_data"][0]["commit"], len(report["steps"])


MORE = {"path": LAMBADA[0], "name": "default"}
MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    (MORE, "tasks[0].dataset: ", "the recipe does not have cimec/lambada test"),
    ({**MORE, "more": [{"path": "cimec/lambada"}, {"path": "a/b"}]}, "", "the group does not read a/b test"),
    ({**MORE, "more": [{"path": "./lambada"}]}, "more[0].path: ", "expected a dataset repo on the Hub"),
    ({**MORE, "more": [{"path": "cimec/lambada@v1"}]}, "more[0].path: ", "write `revision: ...` beside the path"),
    ({**MORE, "more": [{"path": LAMBADA[0], "revision": "v2"}]}, "", "more has another revision of EleutherAI"),
    ({**MORE, "more": [{"path": "cimec/lambada", "revision": "v9"}]}, "more[0].revision: ", "v9"),
]


@pytest.mark.parametrize(("dataset", "place", "cause"), MISTAKES)
def test_mistakes_in_the_data_of_a_group_are_told(
    dataset: dict[str, Any], place: str, cause: str, repos: dict[str, str], hubmerge: Command, tmp_path: Path
) -> None:
    status, _, errors = hubmerge("plan", recipe_of(tmp_path, [{**TAG, "dataset": dataset}]))
    assert status in {2, 3}, errors  # 3: what the Hub does not have
    assert place in errors
    assert cause in errors
    assert "Traceback" not in errors


def test_only_groups_have_more_data(repos: dict[str, str], hubmerge: Command, tmp_path: Path) -> None:
    task = {"name": "first", "kind": "causal-lm", "dataset": {**MORE, "more": [{"path": "cimec/lambada"}]}}
    status, _, errors = hubmerge("check", recipe_of(tmp_path, [task]))
    assert status == 2
    assert "more is a key of groups of lm-evaluation-harness" in errors
