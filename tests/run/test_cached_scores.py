"""Scores that a run takes from earlier runs, and those that it computes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from huggingface_hub import HfApi, hf_hub_download

from hubmerge.errors import MachineError
from hubmerge.evaluation.causal_lm import PreparedCausalLM
from hubmerge.evaluation.score_cache import CACHE_VARIABLE
from hubmerge.run import finish_stage
from tests.evaluation.small_text import save_model, save_tokenizer, sentences

Command = Callable[..., tuple[int, str, str]]
NAMES = ("first", "second")


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the owner of tiny language models and of two datasets."""
    root, client = tmp_path_factory.mktemp("cached"), HfApi()
    for seed, name in enumerate(("base", *NAMES)):
        save_model(root / name, "LlamaForCausalLM", seed, tie_word_embeddings=False)
        save_tokenizer(root / name)
    for name in NAMES:
        rows = datasets.Dataset.from_dict({"text": sentences(6, seed=len(name))})
        rows.to_parquet(root / f"{name}-texts" / "test.parquet")
    for folder in root.iterdir():
        kind = "dataset" if folder.name.endswith("-texts") else "model"
        client.create_repo(f"cached/{folder.name}", repo_type=kind)
        client.upload_folder(repo_id=f"cached/{folder.name}", folder_path=folder, repo_type=kind)
    return "cached"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return a list that receives task and model of every score that is computed."""
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    found: list[tuple[str, str]] = []
    score = PreparedCausalLM.score

    def counted(self: PreparedCausalLM, scorer: Any) -> Any:
        found.append((self.name, scorer.label))
        return score(self, scorer)

    monkeypatch.setattr(PreparedCausalLM, "score", counted)
    return found


def write_recipe(
    folder: Path, owner: str, repo: str | None = None, *, weights: tuple[float, ...] = (0.5, 0.5), steps: int = 2
) -> Path:
    task = {"kind": "causal-lm", "metrics": ["accuracy", "perplexity"]}
    recipe: dict[str, Any] = {
        "merge_method": "task_arithmetic",
        "form": "stream",
        "base_model": f"{owner}/base",
        "models": [
            {"model": f"{owner}/{name}", "name": name, "parameters": {"weight": weight}}
            for name, weight in zip(NAMES[:steps], weights, strict=False)
        ],
        "evaluate": {
            "tasks": [
                {**task, "name": name, "dataset": {"path": f"{owner}/{name}-texts", "text": "text"}}
                for name in NAMES[:steps]
            ]
        },
        **({} if repo is None else {"publish": {"repo": repo}}),
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def interrupted_run(hubmerge: Command, recipe: Path, *arguments: str | Path) -> None:
    """Run until the last model is scored, and stop before its step is finished."""
    with pytest.MonkeyPatch.context() as patch:

        def stop(*_: Any) -> None:
            raise MachineError("the disk is full")

        patch.setattr(finish_stage, "write_metadata_files", stop)
        assert hubmerge("run", recipe, *arguments)[0] == 5


def test_a_run_that_was_interrupted_does_not_score_again(
    owner: str, hubmerge: Command, tmp_path: Path, computed: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, owner, steps=1)
    interrupted_run(hubmerge, recipe, "--out", tmp_path / "out")
    assert len(computed) == 3  # the merged model, the base model, the checkpoint
    computed.clear()
    status, output, errors = hubmerge("run", recipe, "--out", tmp_path / "out")
    assert status == 0, errors
    assert not computed
    assert "evaluate the base model: scores of 1 task taken from the cache" in output
    report = (tmp_path / "out" / "hubmerge.json").read_bytes()
    # All scores computed anew give the same report.
    monkeypatch.setenv(CACHE_VARIABLE, "off")
    other = hubmerge("run", recipe, "--out", tmp_path / "anew", "--work-dir", tmp_path / "fresh")
    assert other[0] == 0, other[2]
    assert len(computed) == 3
    assert (tmp_path / "anew" / "hubmerge.json").read_bytes() == report
    assert not [*(tmp_path / "fresh").rglob("scores/*")]


def test_a_changed_recipe_scores_the_merged_model_alone(
    owner: str, hubmerge: Command, tmp_path: Path, computed: list[tuple[str, str]]
) -> None:
    interrupted_run(hubmerge, write_recipe(tmp_path, owner, steps=1), "--out", tmp_path / "out")
    computed.clear()
    changed = write_recipe(tmp_path, owner, weights=(0.25,), steps=1)
    status, _, errors = hubmerge("run", changed, "--out", tmp_path / "out")
    assert status == 0, errors
    assert computed == [("first", "the merged model of step 1")]


def test_a_step_that_changes_no_weight_is_scored_on_its_new_task_alone(
    owner: str, hubmerge: Command, tmp_path: Path, computed: list[tuple[str, str]]
) -> None:
    recipe = write_recipe(tmp_path, owner, weights=(0.5, 0.0))
    status, output, errors = hubmerge("run", recipe, "--out", tmp_path / "out")
    assert status == 0, errors
    assert [name for name, label in computed if label == "the merged model of step 2"] == ["second"]
    assert "step 2: evaluate: scores of 1 task taken from the cache" in output
    report = json.loads((tmp_path / "out" / "hubmerge.json").read_text(encoding="utf-8"))
    one, two = (step["scores"]["first"] for step in report["steps"])
    assert one == two


def test_damaged_files_are_computed_again(
    owner: str, hubmerge: Command, tmp_path: Path, computed: list[tuple[str, str]]
) -> None:
    recipe = write_recipe(tmp_path, owner, steps=1)
    interrupted_run(hubmerge, recipe, "--out", tmp_path / "out")
    assert len(computed) == 3
    for file in (tmp_path / "work").rglob("scores/*.json"):
        file.write_bytes(file.read_bytes()[:-9])
    computed.clear()
    assert hubmerge("run", recipe, "--out", tmp_path / "out")[0] == 0
    assert len(computed) == 3


def test_verify_computes_every_score_itself(
    owner: str, hubmerge: Command, tmp_path: Path, computed: list[tuple[str, str]], repo_name: Callable[..., str]
) -> None:
    recipe = write_recipe(tmp_path, owner, repo := repo_name("target"), steps=1)
    interrupted_run(hubmerge, recipe)
    files = [*(tmp_path / "work").rglob("scores/*.json")]
    assert len(files) == 3
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        del content["sha256"]
        content["scores"]["accuracy"] = 0.875
        digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        file.write_text(json.dumps({**content, "sha256": digest}), encoding="utf-8")
    computed.clear()
    status, _, errors = hubmerge("run", recipe)
    assert status == 0, errors
    assert not computed
    report = json.loads(Path(hf_hub_download(repo, "hubmerge.json")).read_text(encoding="utf-8"))
    assert report["steps"][-1]["scores"]["first"]["accuracy"] == 0.875
    status, output, errors = hubmerge("verify", repo, "--work-dir", tmp_path / "work")
    assert status == 6, output + errors
    assert len(computed) == 3
    assert "differs  scores: recomputed" in output
    assert len([*(tmp_path / "work").rglob("scores/*.json")]) == 3
