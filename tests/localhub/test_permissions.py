"""Tests of permissions with several users."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
)

from hubmerge.localhub import LocalHub

USERS = [
    {"name": "root", "token": "hf_root", "admin": True},
    {"name": "ann", "token": "hf_ann", "orgs": ["team"]},
    {"name": "bob", "token": "hf_bob"},
    {"name": "eve", "token": "hf_eve", "role": "read", "orgs": ["team"]},
]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    root = tmp_path_factory.mktemp("hub")
    (root / "users.json").write_text(json.dumps({"signing_key": "00", "users": USERS}))
    with LocalHub(root) as hub:
        yield hub


class People:
    def __init__(self, hub: LocalHub) -> None:
        self.ann = HfApi(hub.endpoint, token="hf_ann")
        self.bob = HfApi(hub.endpoint, token="hf_bob")
        self.eve = HfApi(hub.endpoint, token="hf_eve")
        self.root = HfApi(hub.endpoint, token="hf_root")
        self.nobody = HfApi(hub.endpoint, token=False)


@pytest.fixture
def people(hub: LocalHub) -> People:
    return People(hub)


def status_of(error: HfHubHTTPError) -> int:
    return error.response.status_code


def test_tokens_identify_users_and_orgs(people: People, hub: LocalHub) -> None:
    assert people.ann.whoami()["orgs"][0]["name"] == "team"
    assert people.eve.whoami()["auth"]["accessToken"]["role"] == "read"
    with pytest.raises(HfHubHTTPError) as caught:
        HfApi(hub.endpoint, token="hf_wrong").whoami()
    assert status_of(caught.value) == 401
    with pytest.raises(HfHubHTTPError) as caught:
        HfApi(hub.endpoint, token="hf_wrong").model_info("ann/anything")
    assert "Invalid credentials" in str(caught.value)
    assert not isinstance(caught.value, RepositoryNotFoundError)


def test_only_the_owner_writes(people: People) -> None:
    repo = people.ann.create_repo("ann/open").repo_id
    for other, expected in ((people.bob, 403), (people.eve, 403), (people.nobody, 401)):
        with pytest.raises(HfHubHTTPError) as caught:
            other.create_commit(repo, [CommitOperationAdd("a.txt", b"x")], commit_message="no")
        assert status_of(caught.value) == expected
        with pytest.raises(HfHubHTTPError):
            other.create_tag(repo, tag="v1")
        with pytest.raises(HfHubHTTPError):
            other.delete_repo(repo)
        with pytest.raises(HfHubHTTPError):
            other.create_repo("ann/another")
    assert people.nobody.model_info(repo).id == repo
    assert people.root.create_commit(repo, [CommitOperationAdd("a.txt", b"x")], commit_message="yes").oid
    assert people.ann.create_repo("team/shared").repo_id == "team/shared"


def test_private_repos_appear_missing_to_other_users(people: People, tmp_path: Path) -> None:
    repo = people.ann.create_repo("ann/secret", private=True, repo_type="dataset").repo_id
    people.ann.upload_file(path_or_fileobj=b"hidden", path_in_repo="a.txt", repo_id=repo, repo_type="dataset")
    for other, expected in ((people.bob, 404), (people.nobody, 401)):
        with pytest.raises(RepositoryNotFoundError) as caught:
            other.dataset_info(repo)
        assert status_of(caught.value) == expected
        with pytest.raises(RepositoryNotFoundError):
            other.hf_hub_download(repo, "a.txt", repo_type="dataset", cache_dir=tmp_path)
        assert not other.repo_exists(repo, repo_type="dataset")
        assert repo not in [info.id for info in other.list_datasets()]
    assert people.ann.dataset_info(repo).private
    assert repo in [info.id for info in people.root.list_datasets(author="ann")]
    people.ann.update_repo_settings(repo, repo_type="dataset", visibility="public")
    path = people.nobody.hf_hub_download(repo, "a.txt", repo_type="dataset", cache_dir=tmp_path)
    assert Path(path).read_bytes() == b"hidden"


def test_gated_repos_are_readable_after_an_accepted_request(people: People, tmp_path: Path) -> None:
    repo = people.ann.create_repo("ann/gated").repo_id
    people.ann.upload_file(path_or_fileobj=b"inside", path_in_repo="a.txt", repo_id=repo)
    people.ann.update_repo_settings(repo, gated="manual")
    assert people.nobody.model_info(repo).gated == "manual"
    for other, expected in ((people.bob, 403), (people.nobody, 401)):
        with pytest.raises(GatedRepoError) as caught:
            other.hf_hub_download(repo, "a.txt", cache_dir=tmp_path)
        assert status_of(caught.value) == expected
        with pytest.raises(GatedRepoError):
            other.auth_check(repo)
    with pytest.raises(HfHubHTTPError):
        people.bob.grant_access(repo, "bob")
    people.ann.grant_access(repo, "bob")
    assert [request.username for request in people.ann.list_accepted_access_requests(repo)] == ["bob"]
    assert Path(people.bob.hf_hub_download(repo, "a.txt", cache_dir=tmp_path)).read_bytes() == b"inside"
    people.ann.reject_access_request(repo, "bob", rejection_reason=None)
    with pytest.raises(GatedRepoError):
        people.bob.auth_check(repo)
    people.ann.update_repo_settings(repo, gated=False)
    people.nobody.auth_check(repo)


def test_owners_delete_and_move_repos(people: People) -> None:
    repo = people.ann.create_repo("ann/here").repo_id
    commit = people.ann.upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id=repo)
    people.ann.create_repo("ann/taken")
    with pytest.raises(HfHubHTTPError) as caught:
        people.ann.move_repo(repo, "ann/taken")
    assert status_of(caught.value) == 409
    with pytest.raises(HfHubHTTPError):
        people.ann.move_repo(repo, "bob/there")
    people.ann.move_repo(repo, "team/there")
    assert people.ann.model_info(repo).id == "team/there"
    assert people.ann.model_info("team/there").sha == commit.oid
    people.ann.delete_repo("team/there")
    assert not people.ann.repo_exists("team/there")
    assert not people.ann.repo_exists(repo)
    people.ann.delete_repo("team/there", missing_ok=True)
    with pytest.raises(RepositoryNotFoundError):
        people.ann.delete_repo("team/there")


def test_only_the_users_file_contains_tokens(hub: LocalHub) -> None:
    holders = {path.name for path in hub.site.root.rglob("*") if path.is_file() and b"hf_ann" in path.read_bytes()}
    assert holders == {"users.json"}
