"""Runs of streams in which only some models tie head and embeddings: planned, extended and verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import HfApi, hf_hub_download
from safetensors.torch import load_file, save_file

from hubmerge.checkpoints.checkpoint import HeaderOnly
from tests.checkpoints.families import make, save
from tests.checks import every

Command = Callable[..., tuple[int, str, str]]
Names = Callable[..., str]
FAMILY, HEAD, TABLE = "Qwen2ForCausalLM", "lm_head.weight", "model.embed_tokens.weight"
UNTIED = "lm_head.weight is tied in the base model, but not in all checkpoints: it is not tied in the merged model"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return repos of a tied base model, of two tied checkpoints, and of two that have a head of their own.

    The config of `twice` ties it nevertheless, so only its values show it.
    """
    folder, api, repos = tmp_path_factory.mktemp("models"), HfApi(), {}
    for seed, name in enumerate(("base", "one", "two", "own", "twice")):
        model = make(FAMILY, seed, tie_word_embeddings=name != "own")
        place = save(model, folder / name)
        if name == "twice":
            tensors = load_file(place / "model.safetensors")
            save_file({**tensors, HEAD: tensors[TABLE] + 0.5}, place / "model.safetensors")
        repos[name] = api.create_repo(f"local/heads-{name}", exist_ok=True).repo_id
        api.upload_folder(repo_id=repos[name], folder_path=place)
    return repos


def write(folder: Path, sources: dict[str, str], names: tuple[str, ...], repo: str | None, **more: Any) -> Path:
    recipe: dict[str, Any] = {"merge_method": "weight_average", "base_model": sources["base"], **more}
    recipe["models"] = [{"model": sources[name], "name": name} for name in names]
    recipe |= {"publish": {"repo": repo}} if repo is not None else {}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def published(repo: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    config = json.loads(Path(hf_hub_download(repo, "config.json")).read_text())
    return load_file(hf_hub_download(repo, "model.safetensors")), config


@pytest.mark.parametrize("fetch", ["cache", "ranges"])
def test_a_stream_is_untied_from_its_first_step_on_and_extends(
    sources: dict[str, str], hubmerge: Command, tmp_path: Path, repo_name: Names, fetch: str
) -> None:
    repo, whole = repo_name("merged"), repo_name("merged")
    names = ("one", "own", "two") if fetch == "cache" else ("one", "twice", "two")
    for own, target in ((names[:2], repo), (names, repo), (names, whole)):
        status, text, errors = hubmerge("run", write(tmp_path, sources, own, target, fetch=fetch))
        assert status == 0, errors
    report = json.loads(Path(hf_hub_download(repo, "hubmerge.json")).read_text())
    assert f"tensors of their own: {HEAD} ({TABLE} in the base model)" in report["steps"][0]["warnings"][0]
    assert "tensors of their own" in Path(hf_hub_download(repo, "README.md")).read_text()
    (extended, config), (at_once, _) = published(repo), published(whole)
    assert config["tie_word_embeddings"] is False
    assert set(extended) == set(at_once)
    assert every(torch.equal(extended[name], at_once[name]) for name in extended)
    models = [load_file(hf_hub_download(sources[name], "model.safetensors")) for name in names]
    for name in (HEAD, TABLE):
        values = [model.get(name, model[TABLE]) for model in models]
        torch.testing.assert_close(extended[name], torch.stack(values).mean(dim=0))
    status, text, errors = hubmerge("verify", repo, "--work-dir", tmp_path / "verify")
    assert status == 0, text + errors


def test_a_head_of_its_own_is_refused_after_steps_of_tied_models(
    sources: dict[str, str], hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    repo = repo_name("merged")
    assert hubmerge("run", write(tmp_path, sources, ("one",), repo))[0] == 0
    assert HEAD not in published(repo)[0]
    for command in ("plan", "run"):
        status, _, errors = hubmerge(command, write(tmp_path, sources, ("one", "own"), repo))
        assert status == 4
        assert f"'{HEAD}' is a tensor of its own, but it is tied in the base model" in errors
    rule = {"tensors": {"exclude": [HEAD]}}
    assert hubmerge("run", write(tmp_path, sources, ("one", "own"), repo_name("other"), **rule))[0] == 0


def test_a_plan_compares_a_sample_of_tied_tensors(
    sources: dict[str, str], hubmerge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled: list[str] = []
    sample = HeaderOnly.sample

    def noted(self: HeaderOnly, info: Any) -> bytes:
        sampled.append(info.name)
        return sample(self, info)

    monkeypatch.setattr(HeaderOnly, "sample", noted)
    recipe = write(tmp_path, sources, ("one", "twice"), None)
    status, text, errors = hubmerge("plan", recipe)
    assert status == 0, errors
    assert UNTIED in text
    assert sampled == [HEAD, TABLE]
