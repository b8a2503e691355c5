"""Streams merged with methods over moments: published, extended from the Hub alone, verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from transformers import CLIPModel

from tests.checks import every
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Names = Callable[[str], str]


@pytest.mark.parametrize("method", ["wudi", "iso_c"])
def test_a_stream_is_published_extended_and_verified(
    stage: Stage, hubmerge: Command, tmp_path: Path, method: str
) -> None:
    repo = f"team/moments-{method.replace('_', '-')}"
    names = tuple(stage.towers)
    first = stage.recipe(repo, entries=names[:2], merge_method=method)
    status, _, errors = hubmerge("run", stage.write(tmp_path, first))
    assert status == 0, errors
    other = tmp_path / "other"
    other.mkdir()
    whole = stage.recipe(repo, merge_method=method)
    status, output, errors = hubmerge("run", stage.write(other, whole), "--work-dir", str(other / "work"))
    assert status == 0, errors
    status, output, errors = hubmerge("verify", repo)
    assert status == 0, output + errors
    report = json.loads(Path(hf_hub_download(repo, "hubmerge.json")).read_text(encoding="utf-8"))
    assert report["merge_method"] == method
    assert every(step["drift"] > 0.0 for step in report["steps"])
    card = Path(hf_hub_download(repo, "README.md")).read_text(encoding="utf-8")
    assert f"merge_method: {method}" in card
    assert "read out of sums over all task vectors" in card


def merged_weights(repo: str) -> dict[str, torch.Tensor]:
    return load_file(hf_hub_download(repo, "model.safetensors"))


def test_an_entry_is_revoked(stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names) -> None:
    repo, other = repo_name("merged"), repo_name("never")
    first, second, third = stage.towers
    recipe = stage.recipe(repo, merge_method="wudi", parameters={"others": "adaptive"})
    assert hubmerge("run", stage.write(tmp_path, recipe))[0] == 0
    status, output, errors = hubmerge("revoke", repo, second, "--work-dir", str(tmp_path / "elsewhere"))
    assert status == 0, output + errors
    never = stage.recipe(other, entries=(first, third), merge_method="wudi", parameters={"others": "adaptive"})
    assert hubmerge("run", stage.write(tmp_path, never))[0] == 0
    found, expected = merged_weights(repo), merged_weights(other)
    assert every(torch.allclose(found[name], expected[name], rtol=1e-6, atol=1e-7) for name in expected)
    status, output, errors = hubmerge("verify", repo)
    assert status == 0, output + errors
    report = json.loads(Path(hf_hub_download(repo, "hubmerge.json")).read_text(encoding="utf-8"))
    assert [step.get("revokes") for step in report["steps"]] == [None, None, None, second]
    card = Path(hf_hub_download(repo, "README.md")).read_text(encoding="utf-8")
    assert "(taken out)" in card
    scores = report["steps"][-1]["scores"]
    mean = sum(scores[task]["accuracy"] for task in (first, third)) / 2
    assert f"**Accuracy {100 * mean:.1f} %**, the mean of 2 tasks" in card
    assert second in scores
    status, _, errors = hubmerge("revoke", repo, second)
    assert status == 2
    assert f'no earlier entry "{second}" is merged: it is taken out already' in errors
    status, _, errors = hubmerge("revoke", repo, "nobody")
    assert status != 0
    assert first in errors
    status, _, errors = hubmerge("revoke", repo, first, third)
    assert status == 2
    assert f"{repo}: no entry would be left" in errors


def test_a_method_that_projects_refuses_to_revoke(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    repo = repo_name("merged")
    first, second, _ = stage.towers
    recipe = stage.recipe(repo, entries=(first, second), evaluate=None)
    assert hubmerge("run", stage.write(tmp_path, recipe))[0] == 0
    status, _, errors = hubmerge("revoke", repo, first)
    assert status == 2
    assert f"{repo}: opcm cannot take an entry out again" in errors
    assert "wudi" in errors
    status, _, errors = hubmerge("read", repo, "--method", "wudi", "--out", tmp_path / "none")
    assert status == 2
    assert f"{repo} at step-02: wudi cannot read the states of opcm" in errors
    out = tmp_path / "read"
    status, output, errors = hubmerge("read", repo, "--method", "opcm", "-p", "others=mean", "--out", out)
    assert status == 0, output + errors
    assert (out / "model.safetensors").is_file()


def test_a_state_is_read_by_another_method(stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names) -> None:
    repo, other = repo_name("merged"), repo_name("other")
    names = tuple(stage.towers)[:2]
    recipe = stage.write(tmp_path, stage.recipe(repo, entries=names, merge_method="wudi", evaluate=None))
    assert hubmerge("run", recipe, "--out", tmp_path / "whole", "--state")[0] == 0
    direct = stage.recipe(other, entries=names, merge_method="iso_c", parameters={"scaling": 1.25}, evaluate=None)
    assert hubmerge("run", stage.write(tmp_path, direct))[0] == 0
    out = tmp_path / "read"
    work = ("--work-dir", str(tmp_path / "reading"))
    right = ("--method", "iso_c", "-p", "scaling=1.25", "--out", str(out), *work)
    status, output, errors = hubmerge("read", repo, *right)
    assert status == 0, output + errors
    found, expected = load_file(out / "model.safetensors"), merged_weights(other)
    assert every(torch.allclose(found[name], expected[name], rtol=1e-6, atol=1e-7) for name in expected)
    assert CLIPModel.from_pretrained(out).config == CLIPModel.from_pretrained(other).config
    status, output, errors = hubmerge("read", tmp_path / "whole", *right[:4], "--out", tmp_path / "again", *work)
    assert status == 0, output + errors
    found = load_file(tmp_path / "again" / "model.safetensors")
    assert every(torch.allclose(found[name], expected[name], rtol=1e-6, atol=1e-7) for name in expected)
    wrong: tuple[tuple[tuple[str, ...], str], ...] = (
        (("--method", "opcm"), "at step-02: opcm cannot read the states of wudi"),
        (("--method", "wudi", "-p", "precision=float32"), "leave precision out"),
        (("--method", "iso_c", "-p", "scaling=-1"), "expected a number > 0"),
        (("--method", "iso_c", "-p", "scaling"), "NAME=VALUE"),
    )
    for options, message in wrong:
        status, output, errors = hubmerge("read", repo, *options, "--out", str(tmp_path / "none"), *work)
        assert status != 0
        assert message in errors
        assert not (tmp_path / "none").exists()
        assert "download the state" not in output
    status, _, errors = hubmerge("read", "./none", "--method", "iso_c", "--out", tmp_path / "none", *work)
    assert status == 2
    assert "folder not found: ./none" in errors


def test_a_joint_merge_has_nothing_to_take_out(hubmerge: Command, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "merge_method: linear\nform: joint\nbase_model: a/b\nmodels:\n"
        "  - {model: c/x}\n  - {model: c/y}\n  - {model: c/x, revoke: x}\n",
        encoding="utf-8",
    )
    status, _, errors = hubmerge("check", recipe)
    assert status == 2
    assert "linear merges all models at once" in errors
