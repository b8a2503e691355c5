"""States on the state branch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from hubmerge.errors import HubError
from hubmerge.hub import states
from hubmerge.support.names import STATE_BRANCH
from tests.hub.conftest import Repo
from tests.reliability.conftest import RequestHook

MakeRepo = Callable[..., Repo]


@pytest.fixture
def repo(make_repo: MakeRepo) -> str:
    """Create a target repo with one commit."""
    return make_repo({"README.md": b"# Target"}).name


def write_state(folder: Path, content: str) -> str:
    """Write the files of a state and return its digest."""
    folder.mkdir()
    (folder / "accumulated.safetensors").write_text(f"values of {content}")
    manifest = f"manifest of {content}".encode()
    (folder / "state.json").write_bytes(manifest)
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def commits(repo: str) -> list[str]:
    return [entry.title for entry in HfApi().list_repo_commits(repo, revision=STATE_BRANCH)]


def test_a_state_is_published_once_and_fetched(repo: str, tmp_path: Path) -> None:
    digest = write_state(tmp_path / "one", "one")
    assert states.manifest_digest(repo, digest) is None
    for _ in range(2):
        states.publish_state(repo, tmp_path / "one", digest)
    assert commits(repo)[0] == f"state {digest[7:39]}"
    assert commits(repo)[1:] == [HfApi().list_repo_commits(repo)[-1].title]
    assert states.manifest_digest(repo, digest) == digest
    place = tmp_path / "fetched"
    place.mkdir()
    (place / "older").touch()
    assert states.fetch_state(repo, digest, place)
    assert {path.name: path.read_text() for path in place.iterdir()} == {
        "accumulated.safetensors": "values of one",
        "state.json": "manifest of one",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fetched", "one"]


def test_a_state_that_is_not_published(repo: str, tmp_path: Path) -> None:
    assert not states.fetch_state(repo, "sha256:" + "0" * 64, tmp_path / "state")
    assert list(tmp_path.iterdir()) == []


def test_a_changed_manifest_has_another_digest(repo: str, tmp_path: Path) -> None:
    digest = write_state(tmp_path / "one", "one")
    states.publish_state(repo, tmp_path / "one", digest)
    path = f"{digest[7:39]}/state.json"
    HfApi().upload_file(repo_id=repo, path_in_repo=path, path_or_fileobj=b"changed", revision=STATE_BRANCH)
    assert states.manifest_digest(repo, digest) == f"sha256:{hashlib.sha256(b'changed').hexdigest()}"


@pytest.fixture
def three_states(repo: str, tmp_path: Path) -> list[str]:
    """Publish three states and return their digests."""
    digests = [write_state(tmp_path / name, name) for name in ("one", "two", "three")]
    for name, digest in zip(("one", "two", "three"), digests, strict=True):
        states.publish_state(repo, tmp_path / name, digest)
    return digests


def published(repo: str, digests: list[str]) -> list[bool]:
    return [states.manifest_digest(repo, digest) == digest for digest in digests]


def test_old_states_are_deleted_with_their_history(repo: str, three_states: list[str]) -> None:
    states.prune_states(repo, three_states[1:])
    assert published(repo, three_states) == [False, True, True]
    assert len(commits(repo)) == 1
    states.prune_states(repo, three_states[1:])
    assert published(repo, three_states) == [False, True, True]


def test_old_states_are_deleted_after_a_lost_response(
    repo: str, three_states: list[str], request_hook: RequestHook, waits: list[float]
) -> None:
    request_hook.lose_answer(f"POST /api/models/{repo}/commit/{STATE_BRANCH}")
    states.prune_states(repo, three_states[2:])
    assert published(repo, three_states) == [False, False, True]
    assert len(commits(repo)) == 1
    assert len(waits) == 1


def test_nothing_is_deleted_when_another_writer_commits(
    repo: str, three_states: list[str], request_hook: RequestHook
) -> None:
    def interfere() -> None:
        HfApi().upload_file(repo_id=repo, path_in_repo="x/y", path_or_fileobj=b"theirs", revision=STATE_BRANCH)

    request_hook.set(f"POST /api/models/{repo}/commit/{STATE_BRANCH}", interfere)
    states.prune_states(repo, three_states[2:])
    assert published(repo, three_states) == [True, True, True]
    states.prune_states(repo, three_states[2:])
    assert published(repo, three_states) == [False, False, True]


def test_files_of_other_people_are_neither_read_nor_deleted(repo: str, three_states: list[str], tmp_path: Path) -> None:
    folder = three_states[0][7:39]
    others = ["extra.safetensors", "notes/a.txt", f"{folder}/extra.safetensors", f"{folder}/code.py", "0123/state.json"]
    operations = [CommitOperationAdd(path, b"theirs") for path in others]
    HfApi().create_commit(repo, operations, commit_message="Add files", revision=STATE_BRANCH)
    assert states.fetch_state(repo, three_states[0], tmp_path / "fetched")
    assert {path.name for path in (tmp_path / "fetched").iterdir()} == {"accumulated.safetensors", "state.json"}
    states.prune_states(repo, three_states[2:])
    assert published(repo, three_states) == [False, False, True]
    assert set(others) < set(HfApi().list_repo_files(repo, revision=STATE_BRANCH))
    head = commits(repo)
    states.prune_states(repo, three_states[2:])
    assert commits(repo) == head


def test_the_branch_begins_without_the_files_of_the_first_commit(repo: str, tmp_path: Path) -> None:
    first = HfApi().list_repo_commits(repo)[-1].commit_id
    assert "README.md" in HfApi().list_repo_files(repo, revision=first) or len(HfApi().list_repo_commits(repo)) > 1
    digest = write_state(tmp_path / "one", "one")
    states.publish_state(repo, tmp_path / "one", digest)
    names = {path for path in HfApi().list_repo_files(repo, revision=STATE_BRANCH) if "/" not in path}
    assert names <= {".gitattributes"}


def test_an_incomplete_state_counts_as_missing(repo: str, tmp_path: Path) -> None:
    digest = write_state(tmp_path / "one", "one")
    states.publish_state(repo, tmp_path / "one", digest)
    path = f"{digest[7:39]}/accumulated.safetensors"
    HfApi().delete_file(path, repo, revision=STATE_BRANCH)
    assert not states.is_published(repo, digest)
    assert not states.fetch_state(repo, digest, tmp_path / "fetched")
    states.publish_state(repo, tmp_path / "one", digest)
    assert states.is_published(repo, digest)


def test_a_refusal_names_the_branch(repo: str, tmp_path: Path, request_hook: RequestHook) -> None:
    digest = write_state(tmp_path / "one", "one")
    request_hook.refuse(f"POST /api/models/{repo}/commit/{STATE_BRANCH}", status=403)
    message = f"publishing the state to the state branch of {repo}: .*permission"
    with pytest.raises(HubError, match=message) as raised:
        states.publish_state(repo, tmp_path / "one", digest)
    assert raised.value.context.repo == repo
