"""Streams of language models with tasks of lm-evaluation-harness and generated answers: run, published, verified."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from huggingface_hub import HfApi, hf_hub_download

from merge_recipes import load_recipe
from tests.evaluation.small_text import save_model, save_tokenizer, sentences

Command = Callable[..., tuple[int, str, str]]
QUESTIONS = "talk/questions"
DEFINITION = """\
# Which word fits?
dataset_path: talk/questions
test_split: test
fewshot_split: train
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: [cat, dog, bird]
doc_to_target: number
"""


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the repos of tiny Llama models and of a dataset of questions."""
    root, client = tmp_path_factory.mktemp("talk"), HfApi()
    for seed, name in enumerate(("base", "first", "second")):
        save_model(root / name, "LlamaForCausalLM", seed, max_position_embeddings=48, tie_word_embeddings=False)
        save_tokenizer(root / name, around=False)
    for split, count in (("train", 6), ("test", 10)):
        columns = {"question": sentences(count, seed=count), "number": [row % 3 for row in range(count)]}
        rows = datasets.Dataset.from_dict({**columns, "answer": ["cat"] * count})
        rows.to_parquet(root / "questions" / f"{split}.parquet")
    for folder in root.iterdir():
        kind = "dataset" if folder.name == "questions" else "model"
        client.create_repo(f"talk/{folder.name}", repo_type=kind)
        client.upload_folder(repo_id=f"talk/{folder.name}", folder_path=folder, repo_type=kind)
    return {name: f"talk/{name}" for name in ("base", "first", "second")}


def recipe_of(folder: Path, repos: dict[str, str], tasks: list[dict[str, Any]], repo: str | None = None) -> Path:
    (folder / "fits.yaml").write_text(DEFINITION, encoding="utf-8")
    recipe: dict[str, Any] = {
        "merge_method": "task_arithmetic",
        "form": "stream",
        "base_model": repos["base"],
        "models": [{"model": repos[name], "name": name} for name in ("first", "second")],
        "parameters": {"weight": 0.5},
        "evaluate": {"tasks": tasks},
        **({} if repo is None else {"publish": {"repo": repo}}),
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


FITS = {"name": "first", "kind": "lm-eval", "task": "./fits.yaml", "num_fewshot": 1, "limit": 6, "metrics": ["acc"]}
ANSWERS = {
    "name": "second",
    "kind": "generation",
    "dataset": {"path": QUESTIONS, "label": "answer"},
    "prompt": "the {question}",
    "max_new_tokens": 3,
    "metrics": ["chrf", "exact_match"],
}


def test_a_stream_is_published_with_its_scores_and_verified(
    repos: dict[str, str], hubmerge: Command, tmp_path: Path
) -> None:
    path = recipe_of(tmp_path, repos, [{**FITS, "metrics": ["acc_norm"]}, ANSWERS], "talk/merged")
    (tmp_path / "fits.yaml").write_text(DEFINITION, encoding="utf-8")
    status, output, errors = hubmerge("run", path)
    assert status == 0, errors
    report = json.loads(Path(hf_hub_download("talk/merged", "hubmerge.json")).read_text(encoding="utf-8"))
    fits, answers = report["tasks"]
    assert (fits["metrics"], fits["examples"], fits["split"]) == (["acc_norm"], 6, "test")
    assert fits["dataset"] == answers["dataset"] == QUESTIONS
    assert fits["commit"] == HfApi().dataset_info(QUESTIONS).sha
    assert answers["metrics"] == ["chrf", "exact_match"]
    scores = report["steps"][-1]["scores"]
    assert set(scores["first"]) == {"acc_norm", "acc_norm_stderr"}
    assert 0 <= scores["first"]["acc_norm"] <= 1
    assert set(scores["second"]) == {"chrf", "exact_match"}
    assert set(report["base_scores"]) == set(report["own_scores"]) == {"first", "second"}
    published = Path(hf_hub_download("talk/merged", "hubmerge.yaml")).read_text(encoding="utf-8")
    assert "doc_to_choice: [cat, dog, bird]" in published
    card = Path(hf_hub_download("talk/merged", "README.md")).read_text(encoding="utf-8")
    assert "acc_norm" in card
    assert "_stderr" not in card.split("---")[1]
    status, output, errors = hubmerge("verify", "talk/merged")
    assert status == 0, output + errors
    assert "talk/fits" not in output


def test_a_default_metric_is_found_and_kept(repos: dict[str, str], hubmerge: Command, tmp_path: Path) -> None:
    path = recipe_of(tmp_path, repos, [{key: value for key, value in FITS.items() if key != "metrics"}])
    status, output, errors = hubmerge("run", path, "--out", tmp_path / "out")
    assert status == 0, errors
    report = json.loads((tmp_path / "out" / "hubmerge.json").read_text(encoding="utf-8"))
    assert report["tasks"][0]["metrics"] == ["acc"]
    assert set(report["steps"][-1]["scores"]["first"]) == {"acc", "acc_stderr"}
    assert "it/s" not in errors + output
    status, _, errors = hubmerge("lock", path)
    assert status == 0, errors
    (lock,) = tmp_path.glob("*lock*")
    assert {"lm_eval", "sacrebleu"} <= set(yaml.safe_load(lock.read_text(encoding="utf-8"))["versions"])


def test_all_mistakes_are_told_with_their_lines_before_anything_is_read(
    repos: dict[str, str], hubmerge: Command, tmp_path: Path
) -> None:
    tasks = [
        {**FITS, "name": "metric", "metrics": ["acc_nrm"]},
        {
            **FITS,
            "name": "missing",
            "dataset": {"path": "talk/nothing"},
            "task": {**yaml.safe_load(DEFINITION), "dataset_path": "talk/nothing"},
        },
        {**FITS, "name": "both", "dataset": {"path": QUESTIONS, "split": "train"}},
        {**ANSWERS, "name": "engine", "engine": "vllm"},
        {**ANSWERS, "name": "column", "prompt": "{questions}"},
    ]
    path = recipe_of(tmp_path, repos, tasks)
    status, _, errors = hubmerge("plan", path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert status == 2
    for key, message in (
        ("tasks[0].metrics", "no metric 'acc_nrm'; did you mean acc_norm?"),
        ("tasks[1].dataset.path", "talk/nothing"),
        ("tasks[2].dataset", "has the split 'test', the recipe 'train'"),
        ("tasks[3].engine", "needs the package vllm"),
        ("tasks[4].prompt", "the dataset has no column 'questions' for the prompt; did you mean question?"),
    ):
        (found,) = [line for line in errors.splitlines() if f"evaluate.{key}:" in line]
        assert message in found
        line = re.search(r"recipe\.yaml:(\d+):", found)
        assert line is not None
        assert lines[int(line[1]) - 1].strip()


MISTAKES = [
    ("process_docs: !function utils.process", "fits.yaml:9:15", "the tag !function is not allowed: it would run utils"),
    ("dataset_kwargs: {trust_remote_code: true}", None, "options for loading a dataset are not supported"),
    ("unsafe_code: true", None, "unsafe_code needs code"),
    ("metric_list: [{metric: accuracy}]", None, "no metric 'accuracy'"),
    ("output_type: rolling", "fits.yaml:9:1", "duplicate key"),
]


@pytest.mark.parametrize(("line", "place", "message"), MISTAKES)
def test_a_file_with_mistakes_is_refused(
    line: str, place: str | None, message: str, repos: dict[str, str], hubmerge: Command, tmp_path: Path
) -> None:
    path = recipe_of(tmp_path, repos, [FITS])
    (tmp_path / "fits.yaml").write_text(f"{DEFINITION}{line}\n", encoding="utf-8")
    status, _, errors = hubmerge("plan", path)
    assert status == 2
    assert f"{place or 'fits.yaml:9:'}" in errors
    assert message in errors


def test_a_file_is_inserted_into_the_recipe(repos: dict[str, str], tmp_path: Path) -> None:
    loaded = load_recipe(recipe_of(tmp_path, repos, [FITS, ANSWERS, {**FITS, "name": "again"}]))
    assert loaded.text.count("doc_to_choice: [cat, dog, bird]") == 2
    assert loaded.recipe.evaluate is not None
    first = loaded.recipe.evaluate.tasks[0]
    assert (first.dataset.path, first.dataset.max_examples, first.dataset.sample) == (QUESTIONS, 6, "first")
    written = tmp_path / "whole.yaml"
    written.write_text(loaded.text, encoding="utf-8")
    assert load_recipe(written).recipe == loaded.recipe
