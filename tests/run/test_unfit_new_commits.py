"""New commits of sources that do not fit the stream."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, hf_hub_download
from safetensors.torch import load_file, save_file

from tests.run.test_new_commits import Source, recipe_of
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("on_update", ["replace", "append"])
def test_an_unfit_new_commit_can_be_left_out(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Callable[..., str], on_update: str
) -> None:
    source = Source(stage, repo_name("source"))
    source.push(1)
    keys = recipe_of(stage, repo_name("unused"), source.repo, on_update=on_update)
    keys |= {"evaluate": None, "publish": {"repo": repo_name("merged")}}
    path = stage.write(tmp_path, keys)
    assert hubmerge("run", path)[0] == 0
    weights = load_file(hf_hub_download(source.repo, "model.safetensors"))
    name = max(weights, key=lambda one: weights[one].numel())
    save_file(weights | {name: torch.ones(3, 5)}, tmp_path / "other.safetensors", {"format": "pt"})
    HfApi().upload_file(
        path_or_fileobj=tmp_path / "other.safetensors", path_in_repo="model.safetensors", repo_id=source.repo
    )
    status, _, errors = hubmerge("run", path)
    assert status == 4
    assert f"write `on_update: ignore` in place of `{on_update}` to leave this new commit out; or " in errors
    status, output, errors = hubmerge("run", stage.write(tmp_path, {**keys, "on_update": "ignore"}))
    assert status == 0, errors
    assert "nothing to do" in output
