"""Tests of repos that were moved: the old name leads to the new one."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from hubmerge.localhub import LocalHub
from hubmerge.localhub.registry import Registry
from tests.localhub.hostile import serve_users


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with serve_users(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture
def ann(hub: LocalHub) -> HfApi:
    return HfApi(hub.endpoint, token="hf_ann")


def location(hub: LocalHub, method: str, path: str, token: str | None = None) -> tuple[int, str | None]:
    """Return status and `Location` of an answer, without following it."""
    connection = http.client.HTTPConnection(urlsplit(hub.endpoint).netloc, timeout=60)
    connection.request(method, path, headers={"Authorization": f"Bearer {token}"} if token else {})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.headers["Location"]


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_clients_follow_a_moved_name(hub: LocalHub, ann: HfApi, kind: str, tmp_path: Path) -> None:
    old, new = f"ann/old-{kind}", f"team/new-{kind}"
    ann.create_repo(old, repo_type=kind)
    ann.upload_file(path_or_fileobj=b"one", path_in_repo="a.txt", repo_id=old, repo_type=kind)
    ann.move_repo(old, new, repo_type=kind)
    assert ann.repo_info(old, repo_type=kind).id == new
    assert Path(ann.hf_hub_download(old, "a.txt", repo_type=kind, cache_dir=tmp_path)).read_bytes() == b"one"
    assert ann.snapshot_download(old, repo_type=kind, cache_dir=tmp_path / "snapshot")
    ann.create_commit(
        old,
        [CommitOperationAdd("w.bin", b"large" * 1000), CommitOperationAdd("b.txt", b"two")],
        commit_message="to the old name",
        repo_type=kind,
    )
    ann.create_tag(old, tag="v1", repo_type=kind)
    assert {"a.txt", "b.txt", "w.bin"} <= {*ann.list_repo_files(new, repo_type=kind, revision="v1")}
    assert [ref.name for ref in ann.list_repo_refs(old, repo_type=kind).tags] == ["v1"]


def test_addresses_of_every_sort_are_redirected(hub: LocalHub, ann: HfApi) -> None:
    ann.create_repo("ann/sorts")
    ann.move_repo("ann/sorts", "ann/sorted")
    for method, path in (
        ("GET", "/api/models/{}"),
        ("HEAD", "/api/models/{}/revision/main?blobs=true&expand=sha"),
        ("GET", "/api/models/{}/tree/refs%2Fpr%2F1/a%2Fb?recursive=1"),
        ("POST", "/api/models/{}/commit/main?create_pr=1"),
        ("GET", "/{}/resolve/main/a/b.txt?download=true"),
        ("HEAD", "/{}/raw/main/a.txt"),
        ("POST", "/{}.git/info/lfs/objects/batch"),
        ("GET", "/{}"),
        ("GET", "/{}/tree/main/a"),
    ):
        expected = (307, path.format("ann/sorted"))
        assert location(hub, method, path.format("ann/sorts"), "hf_ann") == expected, path


def test_a_name_leads_on_until_it_is_used_again(hub: LocalHub, ann: HfApi) -> None:
    ann.create_repo("ann/first")
    ann.move_repo("ann/first", "ann/second")
    ann.move_repo("ann/second", "team/third")
    assert ann.model_info("ann/first").id == ann.model_info("ann/second").id == "team/third"
    ann.create_repo("ann/second")
    assert ann.model_info("ann/second").id == "ann/second"
    assert ann.model_info("ann/first").id == "team/third"
    ann.move_repo("team/third", "ann/first")
    assert ann.model_info("team/third").id == ann.model_info("ann/first").id == "ann/first"
    ann.move_repo("ann/second", "team/third")
    assert ann.model_info("ann/second").id == "team/third"
    assert ann.model_info("ann/first").id == "ann/first"
    ann.delete_repo("team/third")
    assert not ann.repo_exists("ann/second")
    ann.create_repo("team/third")
    assert not ann.repo_exists("ann/second")


def test_a_former_name_does_not_tell_of_a_private_repo(hub: LocalHub, ann: HfApi) -> None:
    ann.create_repo("ann/open-once")
    ann.move_repo("ann/open-once", "ann/now-hidden")
    ann.update_repo_settings("ann/now-hidden", private=True)
    assert location(hub, "GET", "/api/models/ann/open-once", "hf_eve") == (404, None)
    assert location(hub, "GET", "/api/models/ann/open-once") == (401, None)
    assert location(hub, "GET", "/ann/open-once") == (404, None)
    assert location(hub, "GET", "/api/models/ann/open-once", "hf_ann")[0] == 307


def test_a_move_that_stops_half_way_leaves_the_repo_under_its_old_name(
    hub: LocalHub, ann: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann.create_repo("ann/stays")
    repository = hub.site.registry.find("model", "ann/stays")
    assert repository is not None

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hubmerge.localhub.registry.rename_durably", stop)
    with pytest.raises(KeyboardInterrupt):
        hub.site.registry.move(repository, "ann/never-there")
    monkeypatch.undo()
    assert ann.model_info("ann/stays").id == "ann/stays"
    assert not ann.repo_exists("ann/never-there")
    registry: Registry = hub.site.registry
    assert registry.new_id("model", "ann/never-there") is None
