"""Folders that are published as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hubmerge.errors import HubError
from hubmerge.hub.folders import publish_folder
from tests.conftest import STRANGER_TOKEN


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_only_missing_and_changed_files_are_committed(repo_name: Callable[..., str], tmp_path: Path, kind: str) -> None:
    repo = repo_name("folder")
    (tmp_path / "sub").mkdir()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "sub" / "model.safetensors").write_bytes(b"large")
    assert publish_folder(kind, repo, tmp_path, title="Add")
    assert not publish_folder(kind, repo, tmp_path, title="Add again")
    HfApi().upload_file(repo_id=repo, repo_type=kind, path_in_repo="other.txt", path_or_fileobj=b"theirs")
    (tmp_path / "sub" / "model.safetensors").write_bytes(b"LARGE")
    assert publish_folder(kind, repo, tmp_path, title="Change")
    assert not publish_folder(kind, repo, tmp_path, title="Change again")
    history = [entry.title for entry in HfApi().list_repo_commits(repo, repo_type=kind)]
    assert history[0] == "Change"
    assert history[2] == "Add"
    files = set(HfApi().list_repo_files(repo, repo_type=kind))
    assert {"config.json", "sub/model.safetensors", "other.txt"} <= files


def test_a_token_without_permission(repo_name: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    repo = repo_name("folder")
    with pytest.raises(HubError, match=f"creating model {repo}: this token has no permission"):
        publish_folder("model", repo, tmp_path, title="Add", token=STRANGER_TOKEN)
