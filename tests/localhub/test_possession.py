"""Tests of large files that a user has not uploaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, HfApi

from hubmerge.localhub import LocalHub
from tests.localhub.hostile import HEADER, LINK, SECRET, SHA256, ask, lines, serve_users


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with serve_users(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


def batch(hub: LocalHub, repo: str, user: str) -> dict[str, Any]:
    body = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": SHA256, "size": len(SECRET)}]}
    objects: list[dict[str, Any]] = ask(hub, "POST", f"/{repo}.git/info/lfs/objects/batch", body, user)[1]["objects"]
    return objects[0]


@pytest.mark.parametrize("query", ["", "?create_pr=1"])
@pytest.mark.parametrize("repo", ["eve/own", "ann/public"])
def test_a_known_sha256_gives_no_access_to_a_file(hub: LocalHub, repo: str, query: str) -> None:
    assert "actions" in batch(hub, repo, "eve")
    status, _ = ask(hub, "POST", f"/api/models/{repo}/commit/main{query}", lines(HEADER, LINK))
    assert status == (403 if repo == "ann/public" and not query else 400)
    assert ask(hub, "POST", f"/{repo}.git/info/lfs/verify", {"oid": SHA256, "size": len(SECRET)})[0] == 404
    assert ask(hub, "POST", f"/{repo}.git/info/lfs/verify", {"oid": SHA256, "size": None})[0] == 404
    parts = {"oid": SHA256, "parts": [{"partNumber": 1, "etag": "x"}]}
    assert ask(hub, "POST", f"/lfs/parts/{'0' * 48}", parts)[0] == 404


def test_a_file_can_be_added_after_its_upload(hub: LocalHub, tmp_path: Path) -> None:
    bob = HfApi(hub.endpoint, token="hf_bob")
    repo = bob.create_repo("bob/own").repo_id
    assert "actions" in batch(hub, repo, "bob")
    bob.upload_file(path_or_fileobj=SECRET, path_in_repo="w.bin", repo_id=repo)
    assert Path(bob.hf_hub_download(repo, "w.bin", cache_dir=tmp_path)).read_bytes() == SECRET
    other = bob.create_repo("bob/other").repo_id
    assert "actions" not in batch(hub, other, "bob")
    assert ask(hub, "POST", f"/api/models/{other}/commit/main", lines(HEADER, LINK), "bob")[0] == 200
    assert "actions" in batch(hub, "eve/own", "eve")


def test_files_of_a_repo_can_be_copied_by_its_other_writers(hub: LocalHub) -> None:
    ann, bob = HfApi(hub.endpoint, token="hf_ann"), HfApi(hub.endpoint, token="hf_bob")
    repo = ann.create_repo("team/shared", private=True).repo_id
    content = Random(8).randbytes(500)
    ann.create_commit(repo, [CommitOperationAdd("a.bin", content)], commit_message="add")
    bob.create_commit(repo, [CommitOperationCopy("a.bin", "b.bin")], commit_message="copy")
    assert "b.bin" in ann.list_repo_files(repo)


def test_an_upload_address_serves_one_user(hub: LocalHub) -> None:
    body = {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 5}]}
    answer = ask(hub, "POST", "/eve/own.git/info/lfs/objects/batch", body)[1]["objects"][0]
    address = urlsplit(answer["actions"]["upload"]["href"]).path
    assert ask(hub, "PUT", address, b"right")[0] == 400
    assert ask(hub, "PUT", address.replace("/eve/", "/ann/"), b"right")[0] == 403


def test_files_of_a_readable_repo_are_copied_to_another_one(hub: LocalHub, tmp_path: Path) -> None:
    ann, eve = HfApi(hub.endpoint, token="hf_ann"), HfApi(hub.endpoint, token="hf_eve")
    content = Random(9).randbytes(500)
    ann.create_commit(
        "ann/public",
        [CommitOperationAdd("large.bin", content), CommitOperationAdd("small.txt", b"small")],
        commit_message="add",
    )
    copies = [
        CommitOperationCopy(path, f"copy/{path}", src_repo_id="ann/public", src_repo_type="model")
        for path in ("large.bin", "small.txt")
    ]
    eve.create_commit("eve/own", copies, commit_message="copy")
    assert Path(eve.hf_hub_download("eve/own", "copy/large.bin", cache_dir=tmp_path)).read_bytes() == content
    for source, status in (("ann/private", 404), ("ann/gated", 403), ("eve/own", 200)):
        body = {"target": {"type": "model", "name": "eve/own"}, "files": [{"sha256": SHA256, "filename": "w.bin"}]}
        found, answer = ask(hub, "POST", f"/api/models/{source}/lfs-files/duplicate", body)
        assert found == status
        if status == 200:
            assert [failure["sha256"] for failure in answer["failed"]] == [SHA256]
    assert "actions" in batch(hub, "eve/own", "eve")
    targets: list[object] = [{"type": "model", "name": "ann/public"}, {"type": "kernel", "name": "eve/own"}, None]
    for target in targets:
        refused = {"target": target, "files": []}
        assert ask(hub, "POST", "/api/models/eve/own/lfs-files/duplicate", refused)[0] in (400, 403)
    assert ask(hub, "POST", "/api/models/ann/public/lfs-files/duplicate", {}, user=None)[0] == 401
