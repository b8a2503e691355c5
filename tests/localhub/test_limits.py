"""Tests of bodies: permission before reading, and limits."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from hubmerge.localhub import LocalHub
from hubmerge.localhub.web import commits
from tests.localhub.hostile import HEADER, ask, lines, serve_users


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with serve_users(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


def head_of(hub: LocalHub, method: str, address: str, user: str | None, size: int | None) -> int:
    """Send the head of a request and nothing of its body; return the status of the answer."""
    place = urlsplit(hub.endpoint)
    head = [f"{method} {address} HTTP/1.1", f"Host: {place.netloc}"]
    head += ["Transfer-Encoding: chunked"] if size is None else [f"Content-Length: {size}"]
    head += [f"Authorization: Bearer hf_{user}"] if user else []
    with socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=60) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        answer = connection.recv(1000)
    return int(answer.split(b" ", 2)[1])


REPO = "/api/models/ann/public"


@pytest.mark.parametrize("size", [600_000_000, None])
@pytest.mark.parametrize(
    ("method", "address", "user", "status"),
    [
        ("POST", "/api/models/ann/never-made/commit/main", None, 401),
        ("POST", "/api/models/ann/never-made/commit/main", "eve", 404),
        ("POST", "/api/models/ann/private/commit/main", "eve", 404),
        ("POST", f"{REPO}/commit/main", None, 401),
        ("POST", f"{REPO}/commit/main", "eve", 403),
        ("POST", f"{REPO}/commit/main", "reader", 403),
        ("POST", f"{REPO}/commit/main?create_pr=1", None, 401),
        ("POST", f"{REPO}/commit/main?create_pr=1", "reader", 403),
        ("POST", f"{REPO}/commit/never-made", "ann", 404),
        ("POST", f"{REPO}/preupload/main", None, 401),
        ("POST", f"{REPO}/branch/x", "eve", 403),
        ("POST", f"{REPO}/tag/main", "eve", 403),
        ("POST", f"{REPO}/super-squash/main", "eve", 403),
        ("PUT", f"{REPO}/settings", "eve", 403),
        ("POST", "/api/models/ann/private/paths-info/main", None, 401),
        ("POST", "/ann/public.git/info/lfs/objects/batch", None, 401),
        ("POST", "/ann/private.git/info/lfs/verify", "eve", 404),
        ("POST", "/api/repos/create", None, 401),
        ("POST", "/api/collections", None, 401),
        ("POST", f"{REPO}/discussions", None, 401),
        ("POST", f"{REPO}/discussions", "reader", 403),
        ("POST", "/api/models/ann/private/discussions", "eve", 404),
        ("POST", "/api/models/ann/gated/discussions", "eve", 403),
        ("POST", f"{REPO}/lfs-files/duplicate", None, 401),
        ("POST", f"{REPO}/lfs-files/duplicate", "reader", 403),
        ("POST", f"{REPO}/commit/refs%2Fpr%2F1", "eve", 403),
        ("POST", f"{REPO}/duplicate", None, 501),
        ("POST", "/api/papers/1", None, 501),
        ("PUT", f"{REPO}/tree/main", None, 405),
        ("POST", "/ann/public", None, 405),
        ("POST", "/ann/gated/ask-access", None, 401),
        ("POST", f"/lfs/parts/{'0' * 48}", None, 404),
        ("PUT", f"/lfs/parts/{'0' * 48}/1", None, 404),
        ("PUT", f"/lfs/whole/eve/{'0' * 64}/5/00", None, 403),
        ("POST", "/v1/shards", None, 401),
        ("POST", f"/v1/xorbs/default/{'0' * 64}", None, 401),
    ],
)
def test_callers_without_permission_are_refused_before_the_body_is_read(
    hub: LocalHub, method: str, address: str, user: str | None, status: int, size: int | None
) -> None:
    assert head_of(hub, method, address, user, size) == status


@pytest.mark.parametrize("address", [f"{REPO}/commit/main", f"{REPO}/preupload/main", "/api/repos/create"])
def test_bodies_that_are_too_large_are_refused(hub: LocalHub, address: str) -> None:
    assert head_of(hub, "POST", address, "ann", 2_000_000_000) == 413


def test_bodies_without_a_length_are_limited(hub: LocalHub) -> None:
    place = urlsplit(hub.endpoint)
    with socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=60) as connection:
        head = "POST /api/repos/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        connection.sendall(f"{head}Authorization: Bearer hf_ann\r\n\r\n".encode())
        for _ in range(5):
            connection.sendall(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")
        assert b" 413 " in connection.recv(1000)


@pytest.mark.parametrize("limit", ["LINE_LIMIT_BYTES", "MAX_OPERATIONS", "COMMIT_LIMIT_BYTES"])
def test_commits_are_limited(hub: LocalHub, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, limit, 3 if limit == "MAX_OPERATIONS" else 300)
    add = [{"key": "file", "value": {"path": f"{number}.txt", "content": "x" * 100}} for number in range(4)]
    assert ask(hub, "POST", "/api/models/eve/own/commit/main", lines(HEADER, add[0]))[0] == 200
    long = {"key": "file", "value": {"path": "a", "content": "x" * 300}}
    body = lines(HEADER, long) if limit == "LINE_LIMIT_BYTES" else lines(HEADER, *add)
    assert ask(hub, "POST", "/api/models/eve/own/commit/main", body)[0] == 413
    assert list(hub.site.temporary.folder.iterdir()) == []
