from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from hubmerge.localhub import LocalHub

Names = Callable[..., str]


@pytest.fixture
def api(local_hub: LocalHub) -> HfApi:
    return HfApi()


@pytest.fixture
def repo(api: HfApi, repo_name: Names) -> str:
    return api.create_repo(repo_name()).repo_id


def test_the_environment_chooses_this_hub(api: HfApi, local_hub: LocalHub) -> None:
    assert api.endpoint == local_hub.endpoint
    assert api.whoami()["name"] == "local"


def test_a_repo_cannot_be_created_twice(api: HfApi, repo_name: Names) -> None:
    name = repo_name()
    url = api.create_repo(name)
    assert (url.repo_id, url.repo_type) == (name, "model")
    assert api.create_repo(name, exist_ok=True).repo_id == name
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_repo(name)
    assert caught.value.response.status_code == 409


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_an_uploaded_folder_is_downloaded_unchanged(api: HfApi, repo_name: Names, tmp_path: Path, kind: str) -> None:
    name = api.create_repo(repo_name(), repo_type=kind, space_sdk="static" if kind == "space" else None).repo_id
    files = {
        "README.md": b"---\nlicense: mit\n---\n# Hello\n",
        "weights.safetensors": bytes(range(256)) * 5000,
        "deep/er/notes with space #1.txt": "näme\n".encode(),
        "empty.txt": b"",
        "binary": b"\x00\x01",
    }
    for path, content in files.items():
        (tmp_path / "up" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "up" / path).write_bytes(content)
    done = api.upload_folder(repo_id=name, repo_type=kind, folder_path=tmp_path / "up")
    down = Path(
        snapshot_download(name, repo_type=kind, revision=done.oid, cache_dir=tmp_path / "cache", etag_timeout=60)
    )
    assert down.name == done.oid
    found = {str(path.relative_to(down)): path.read_bytes() for path in down.rglob("*") if path.is_file()}
    del found[".gitattributes"]
    assert found == files
    found_now = list(api.list_repo_tree(name, repo_type=kind, recursive=True))
    stored = {item.path: item.lfs for item in found_now if isinstance(item, RepoFile)}
    pointer = stored["weights.safetensors"]
    assert pointer is not None
    assert pointer.sha256 == hashlib.sha256(files["weights.safetensors"]).hexdigest()
    assert stored["README.md"] is None
    assert "deep/er" in {item.path for item in found_now}


def test_commits_build_on_each_other(api: HfApi, repo: str) -> None:
    first = api.create_commit(
        repo, [CommitOperationAdd("a.txt", b"one"), CommitOperationAdd("x/b.bin", b"two")], commit_message="First"
    )
    second = api.create_commit(
        repo,
        [CommitOperationDelete("a.txt"), CommitOperationAdd("c.txt", b"three")],
        commit_message="Second",
        commit_description="With more to say",
        parent_commit=first.oid,
    )
    assert sorted(api.list_repo_files(repo)) == [".gitattributes", "c.txt", "x/b.bin"]
    assert sorted(api.list_repo_files(repo, revision=first.oid)) == [".gitattributes", "a.txt", "x/b.bin"]
    commits = api.list_repo_commits(repo)
    assert [commit.title for commit in commits] == ["Second", "First", "initial commit"]
    assert commits[0].commit_id == second.oid == api.model_info(repo).sha
    assert commits[0].message == "With more to say"
    assert commits[0].authors == ["local"]


def test_a_moved_parent_is_refused_and_changes_nothing(api: HfApi, repo: str) -> None:
    start = api.model_info(repo).sha
    head = api.create_commit(repo, [CommitOperationAdd("a.txt", b"1")], commit_message="a", parent_commit=start)
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_commit(repo, [CommitOperationAdd("a.txt", b"2")], commit_message="b", parent_commit=start)
    assert caught.value.response.status_code == 412
    assert api.model_info(repo).sha == head.oid


def test_tags_and_branches_are_created_and_deleted(api: HfApi, repo: str) -> None:
    start = api.model_info(repo).sha
    api.create_branch(repo, branch="dev/x")
    head = api.create_commit(
        repo, [CommitOperationAdd("a.txt", b"1")], commit_message="on the branch", revision="dev/x"
    )
    api.create_tag(repo, tag="v1/final", revision="dev/x")
    refs = api.list_repo_refs(repo)
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": start, "dev/x": head.oid}
    assert {ref.name: ref.target_commit for ref in refs.tags} == {"v1/final": head.oid}
    assert api.model_info(repo, revision="v1/final").sha == head.oid
    assert Path(api.hf_hub_download(repo, "a.txt", revision="dev/x")).read_bytes() == b"1"
    with pytest.raises(HfHubHTTPError):
        api.create_tag(repo, tag="v1/final")
    api.create_tag(repo, tag="v1/final", exist_ok=True)
    api.delete_branch(repo, branch="dev/x")
    api.delete_tag(repo, tag="v1/final")
    refs = api.list_repo_refs(repo)
    assert ([ref.name for ref in refs.branches], refs.tags) == (["main"], [])
    assert api.model_info(repo, revision=head.oid).sha == head.oid


def test_missing_things_raise_the_errors_of_the_client(api: HfApi, repo: str, repo_name: Names) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.model_info(repo_name())
    with pytest.raises(RevisionNotFoundError):
        api.model_info(repo, revision="nope")
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download(repo, "nope.txt")
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(repo, "nope"))
    with pytest.raises(RemoteEntryNotFoundError):
        api.delete_file("nope.txt", repo)
    assert not api.repo_exists(repo_name())
    assert not api.file_exists(repo, "nope.txt")
    assert api.file_exists(repo, ".gitattributes")
