"""Tests of everything that callers could otherwise let grow without end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from hubmerge.errors import MachineError
from hubmerge.localhub import (
    LocalHub,
    collections,
    discussions,
    moves,
    multipart,
    objects,
    operations,
    registry,
)
from hubmerge.localhub import repository as repositories
from hubmerge.localhub.objects import ObjectStore
from hubmerge.localhub.refusals import BadRequest
from hubmerge.localhub.slots import Slots
from hubmerge.localhub.web import bodies, calls, commits, upload
from hubmerge.localhub.xet import formats
from tests.localhub.bounded_hub import hub
from tests.localhub.hostile import HEADER, ask, lines

__all__ = ["hub"]  # fixtures

COMMIT = "/api/models/eve/own/commit/main"
BATCH = "/eve/own.git/info/lfs/objects/batch"


@pytest.fixture
def eve(hub: LocalHub) -> HfApi:
    return HfApi(hub.endpoint, token="hf_eve")


def begin(hub: LocalHub, method: str, address: str, sent: bytes, user: str = "eve") -> bytes:
    """Send the head of a request and the first bytes of a body that never ends; return the begin of the answer."""
    place = urlsplit(hub.endpoint)
    head = f"{method} {address} HTTP/1.1\r\nHost: {place.netloc}\r\nTransfer-Encoding: chunked\r\n"
    with socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=60) as connection:
        connection.sendall(f"{head}Authorization: Bearer hf_{user}\r\n\r\n".encode())
        for first in range(0, len(sent), 1000):
            piece = sent[first : first + 1000]
            connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        return connection.recv(1000)


@pytest.mark.parametrize("create_pr", ["", "?create_pr=1"])
def test_a_long_line_is_refused_while_it_arrives(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch, create_pr: str
) -> None:
    monkeypatch.setattr(commits, "LINE_LIMIT_BYTES", 5000)
    short = lines(*[HEADER] * 300) + b"\n"
    for sent in (b"x" * 6000, short + b"x" * 6000, short + b"x" * 3000 + b"y" * 3000):
        answer = begin(hub, "POST", COMMIT + create_pr, sent)
        assert b" 413 " in answer
        assert b"too long: expected at most 5000 bytes" in answer
    monkeypatch.setattr(commits, "MAX_OPERATIONS", 10)
    assert b"too many lines" in begin(hub, "POST", COMMIT + create_pr, b"\n" * 100)
    assert list(hub.site.temporary.folder.iterdir()) == []


def test_a_body_that_stalls_is_refused(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "STALLED_SECONDS", 0.05)
    asked = {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 5}, {"oid": "1" * 64, "size": 5000}]}
    whole, parts = ask(hub, "POST", BATCH, {**asked, "transfers": ["multipart"]})[1]["objects"]
    for method, address in (
        ("POST", COMMIT),
        ("POST", "/api/collections"),
        ("PUT", urlsplit(whole["actions"]["upload"]["href"]).path),
        ("PUT", urlsplit(parts["actions"]["upload"]["header"]["1"]).path),
    ):
        assert b" 408 " in begin(hub, method, address, b"abc")


def test_bodies_of_a_user_wait_for_each_other() -> None:
    async def run() -> list[str]:
        slots, seen = Slots(2), []
        opened = asyncio.Event()

        async def hold(user: str) -> None:
            async with slots.take(user):
                seen.append(user)
                await opened.wait()

        tasks = [asyncio.create_task(hold(user)) for user in ("eve", "eve", "eve", "ann")]
        await asyncio.sleep(0.01)
        seen.append("|")
        opened.set()
        await asyncio.gather(*tasks)
        assert not slots._semaphores
        return seen

    assert asyncio.run(run()) == ["eve", "eve", "ann", "|", "eve"]


def batch(hub: LocalHub, count: int, user: str, size: int = 5000) -> tuple[int, Any]:
    asked = [{"oid": f"{number:064x}", "size": size} for number in range(count)]
    body = {"operation": "upload", "transfers": ["multipart"], "objects": asked}
    return ask(hub, "POST", f"/{user}/own.git/info/lfs/objects/batch", body, user)


def test_unfinished_uploads_of_a_user_are_limited(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.site.multiparts._uploads.clear()
    HfApi(hub.endpoint, token="hf_bob").create_repo("bob/own", exist_ok=True)
    monkeypatch.setattr(multipart, "MOST_UPLOADS", 3)
    status, first = batch(hub, 3, "eve")
    assert status == 200
    status, refused = batch(hub, 1, "eve")
    assert status == 429
    assert "3 unfinished uploads" in refused["error"]
    assert batch(hub, 3, "bob")[0] == 200
    monkeypatch.setattr(multipart, "IDLE_SECONDS", 0.0)
    assert batch(hub, 1, "eve")[0] == 200
    dropped = urlsplit(first["objects"][0]["actions"]["upload"]["header"]["1"]).path
    assert ask(hub, "PUT", dropped, b"x" * 1000)[0] == 404
    assert len(hub.site.multiparts._uploads) == 6
    monkeypatch.setattr(upload, "MAX_OBJECTS", 2)
    assert batch(hub, 3, "eve")[0] == 413


def test_a_file_has_a_limited_number_of_parts(hub: LocalHub) -> None:
    _, answer = batch(hub, 1, "eve", size=100_000_000)
    header = answer["objects"][0]["actions"]["upload"]["header"]
    assert len(header) == 1001
    assert header["chunk_size"] == "100000"


def test_completed_uploads_are_forgotten(hub: LocalHub, eve: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "MOST_COMPLETED", 2)
    for number in range(4):
        content = Random(number).randbytes(2500)
        eve.upload_file(path_or_fileobj=content, path_in_repo=f"{number}.bin", repo_id="eve/own")
    assert len(hub.site.multiparts._completed) == 2


def test_refs_files_and_repos_are_limited(hub: LocalHub, eve: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = eve.create_repo("eve/small").repo_id
    monkeypatch.setattr(repositories, "MAX_REFS", 2)
    monkeypatch.setattr(discussions, "MAX_EVENTS", 2)
    monkeypatch.setattr("hubmerge.localhub.pulls.MAX_DISCUSSIONS", 2)
    monkeypatch.setattr(operations, "MOST_FILES", 3)
    monkeypatch.setattr(registry, "MOST_REPOS", len(list(eve.list_models(author="eve"))))
    monkeypatch.setattr(moves, "MOST_MOVES", 0)
    eve.create_branch(repo, branch="one")
    eve.create_tag(repo, tag="one")
    eve.create_tag(repo, tag="two")
    eve.create_discussion(repo, title="one", description="a comment")
    eve.comment_discussion(repo, 1, "another comment")
    eve.create_commit(repo, [CommitOperationAdd("a", b"a"), CommitOperationAdd("b", b"b")], commit_message="two")
    eve.create_commit(repo, [CommitOperationAdd("b", b"c")], commit_message="p", create_pr=True)
    refused: list[tuple[int, Callable[[], object]]] = [
        (400, lambda: eve.create_branch(repo, branch="two")),
        (400, lambda: eve.create_tag(repo, tag="three")),
        (400, lambda: eve.create_discussion(repo, title="three")),
        (400, lambda: eve.comment_discussion(repo, 1, "a third one")),
        (400, lambda: eve.create_commit(repo, [CommitOperationAdd("b", b"d")], commit_message="p", create_pr=True)),
        (413, lambda: eve.create_commit(repo, [CommitOperationAdd("c", b"c")], commit_message="three")),
        (400, lambda: eve.create_repo("eve/another")),
        (400, lambda: eve.move_repo(repo, "eve/small-renamed")),
    ]
    for status, call in refused:
        with pytest.raises(HfHubHTTPError) as caught:
            call()
        assert caught.value.response.status_code == status
    assert eve.model_info(repo).id == repo


def test_collections_are_limited(hub: LocalHub, eve: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collections, "MOST_COLLECTIONS", 1)
    monkeypatch.setattr(collections, "MOST_ITEMS", 1)
    slug = eve.create_collection("one").slug
    eve.add_collection_item(slug, "eve/own", "model")
    item = {"item": {"id": "ann/public", "type": "model"}}
    for method, address, body in (
        ("POST", "/api/collections", {"title": "two"}),
        ("POST", f"/api/collections/{slug}/items", item),
        ("PATCH", f"/api/collections/{slug}", {"title": "x" * 2000}),
        ("PATCH", f"/api/collections/{slug}", {"description": "x" * 2000}),
    ):
        assert ask(hub, method, address, body)[0] == 400


def test_queries_and_addresses_are_limited(hub: LocalHub) -> None:
    assert ask(hub, "GET", "/api/models?" + "&".join(["search=a"] * calls.MAX_QUERY_FIELDS))[0] == 200
    assert ask(hub, "GET", "/api/models?" + "&".join(["search=a"] * (calls.MAX_QUERY_FIELDS + 1)))[0] == 400
    place = urlsplit(hub.endpoint)
    for head in (b"GET /" + b"a" * 2_000_000, b"GET / HTTP/1.1\r\nA: " + b"a" * 2_000_000):
        with socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=60) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(head)
            with contextlib.suppress(ConnectionError):
                assert connection.recv(100).partition(b"\r\n")[0] in (b"HTTP/1.1 400 Bad Request", b"")


def test_uploads_leave_room_on_the_disk(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 5}, {"oid": "1" * 64, "size": 5000}]}
    whole, parts = ask(hub, "POST", BATCH, {**asked, "transfers": ["multipart"]})[1]["objects"]
    monkeypatch.setattr(objects, "SPARE_BYTES", 1 << 60)
    for method, address, body in (
        ("POST", BATCH, asked),
        ("POST", COMMIT, lines(HEADER)),
        ("PUT", urlsplit(whole["actions"]["upload"]["href"]).path, b"12345"),
        ("PUT", urlsplit(parts["actions"]["upload"]["header"]["1"]).path, b"x" * 1000),
    ):
        status, answer = ask(hub, method, address, body)
        assert status == 507
        assert "no room" in answer["error"]


def test_a_full_disk_is_named(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ObjectStore, "add_blob", fail)
    body = lines(HEADER, {"key": "file", "value": {"path": "a", "content": "x"}})
    assert ask(hub, "POST", COMMIT, body) == (507, {"error": "The disk of this Hub is full."})


def test_xorbs_and_shards_have_few_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = bytes(8) * 20_000
    with pytest.raises(BadRequest, match="too many chunks"):
        formats.read_chunks(io.BytesIO(headers), len(headers))
    monkeypatch.setattr(formats, "MOST_TERMS", 2)
    head = b"HFRepoMetaData\0".ljust(32, b"\0") + (2).to_bytes(8, "little") + bytes(8)
    file = b"f" * 32 + bytes(4) + (3).to_bytes(4, "little") + bytes(8)
    with pytest.raises(BadRequest, match="too many terms"):
        list(formats.read_shard(head + file + bytes(48 * 3) + b"\xff" * 48))


def test_a_quota_limits_all_that_a_user_sends(tmp_path: Path) -> None:
    users = [{"name": "ann", "token": "hf_ann"}, {"name": "eve", "token": "hf_eve", "quota_gb": 0.00001}]
    (tmp_path / "users.json").write_text(json.dumps({"signing_key": "00", "users": users}))
    with LocalHub(tmp_path, part_bytes=1000) as hub:
        ann, eve = HfApi(hub.endpoint, token="hf_ann"), HfApi(hub.endpoint, token="hf_eve")
        repo = ann.create_repo("ann/open").repo_id
        eve.upload_file(path_or_fileobj=bytes(900), path_in_repo="a.bin", repo_id=repo, create_pr=True)
        eve.upload_file(path_or_fileobj=bytes(5000), path_in_repo="b.bin", repo_id=repo, create_pr=True)
        eve.upload_file(path_or_fileobj=b"x" * 1500, path_in_repo="c.txt", repo_id=repo, create_pr=True)
        used = hub.site.usage.of(hub.site.users.users[1])
        assert 7900 < used < 9900
        for name, content in (("d.bin", bytes(2200)), ("e.txt", b"x" * 3000)):
            with pytest.raises(HfHubHTTPError, match="storage quota") as caught:
                eve.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id=repo, create_pr=True)
            assert caught.value.response.status_code == 403
        token = ask(hub, "GET", f"/api/models/{repo}/xet-write-token/main?create_pr=1")[1]["accessToken"]
        request = urllib.request.Request(f"{hub.endpoint}/v1/xorbs/default/{'0' * 64}", b"x" * 3000, method="POST")
        request.add_header("Authorization", f"Bearer {token}")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=60)
        with refused.value:
            assert refused.value.code == 403
        assert hub.site.usage.of(hub.site.users.users[1]) == used
        ann.upload_file(path_or_fileobj=bytes(20_000), path_in_repo="f.bin", repo_id=repo)
        pulls = ann.list_repo_refs(repo, include_pull_requests=True).pull_requests or []
        assert len(pulls) == 3


@pytest.mark.parametrize("quota", ["many", -1, True, [1], 1e30])
def test_an_odd_quota_is_named_at_the_start(tmp_path: Path, quota: object) -> None:
    users = [{"name": "ann", "token": "hf_ann", "quota_gb": quota}]
    (tmp_path / "users.json").write_text(json.dumps({"signing_key": "00", "users": users}))
    with pytest.raises(MachineError, match="quota_gb"):
        LocalHub(tmp_path)
