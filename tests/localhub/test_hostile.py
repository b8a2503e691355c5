"""Tests of hostile requests: unproven large files, unread bodies, and odd JSON, cards and addresses."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, HfApi

from hubmerge.localhub import LocalHub
from hubmerge.localhub.web import commits

USERS = [
    {"name": "root", "token": "hf_root", "admin": True},
    {"name": "ann", "token": "hf_ann", "orgs": ["team"]},
    {"name": "bob", "token": "hf_bob", "orgs": ["team"]},
    {"name": "eve", "token": "hf_eve"},
    {"name": "reader", "token": "hf_reader", "role": "read", "orgs": ["ann"]},
]
SECRET = Random(7).randbytes(2000)
SHA256 = hashlib.sha256(SECRET).hexdigest()
HEADER = {"key": "header", "value": {"summary": "x"}}
LINK = {"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", "oid": SHA256, "size": len(SECRET)}}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    root = tmp_path_factory.mktemp("hub")
    (root / "users.json").write_text(json.dumps({"signing_key": "00", "users": USERS}))
    with LocalHub(root, part_bytes=1000) as hub:
        ann, eve = HfApi(hub.endpoint, token="hf_ann"), HfApi(hub.endpoint, token="hf_eve")
        for repo in ("ann/private", "ann/gated", "ann/public"):
            ann.create_repo(repo, private=repo == "ann/private")
        ann.update_repo_settings("ann/gated", gated="manual")
        for repo in ("ann/private", "ann/gated"):
            ann.upload_file(path_or_fileobj=SECRET, path_in_repo="w.bin", repo_id=repo)
        eve.create_repo("eve/own")
        yield hub


def ask(hub: LocalHub, method: str, address: str, body: object = None, user: str | None = "eve") -> tuple[int, Any]:
    """Send a request without a client library, and return status and answer."""
    raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(hub.endpoint + address, data=raw, method=method)
    request.add_header("Content-Type", "application/json")
    if user is not None:
        request.add_header("Authorization", f"Bearer hf_{user}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read() or b"{}")


def lines(*items: object) -> bytes:
    return b"\n".join(json.dumps(item).encode() for item in items)


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


def head_of(hub: LocalHub, method: str, address: str, user: str | None, size: int | None) -> int:
    """Send the head of a request and nothing of its body; return the status of the answer."""
    place = urlsplit(hub.endpoint)
    head = [f"{method} {address} HTTP/1.1", f"Host: {place.netloc}"]
    head += ["Transfer-Encoding: chunked"] if size is None else [f"Content-Length: {size}"]
    head += [f"Authorization: Bearer hf_{user}"] if user else []
    with socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=10) as connection:
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
    with socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=10) as connection:
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


ODD_TEXTS = [
    b"[" * 100_000,
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b"[" + b"[]," * 30_000 + b"[]]",
    b"[" + b"1," * 300_000 + b"1]",
    b'{"name": "\\ud800", "title": "\\ud800", "paths": ["\\udfff"], "tag": "\\ud800", "content": "\\ud800"}',
    b'{"name": NaN}',
    b'{"size": 1e999}',
    b'{"size": ' + b"9" * 5000 + b"}",
    b'{"name": "\xff"}',
    '{"name": "x"}'.encode("utf-16"),
    b'"text"',
    b"[1]",
    b"null",
    b"{",
]


@pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
def test_odd_json_is_refused(hub: LocalHub, text: bytes) -> None:
    repo = "/api/models/eve/own"
    for address in (
        "/api/repos/create",
        "/api/repos/move",
        "/api/validate-yaml",
        "/api/collections",
        f"{repo}/preupload/main",
        f"{repo}/paths-info/main",
        f"{repo}/tag/main",
        f"{repo}/super-squash/main",
        "/eve/own.git/info/lfs/objects/batch",
        "/eve/own.git/info/lfs/verify",
    ):
        assert ask(hub, "POST", address, text)[0] == 400, address
    for line in (text, b'{"key": "header", "value": ' + text + b"}"):
        odd = lines(HEADER) + b"\n" + line
        assert ask(hub, "POST", f"{repo}/commit/main", odd)[0] == 400


@pytest.mark.parametrize(
    ("method", "address", "body"),
    [
        ("POST", "/api/models/eve/own/preupload/main", {"files": 5}),
        ("POST", "/api/models/eve/own/preupload/main", {"files": [5]}),
        ("POST", "/api/models/eve/own/preupload/main", {"files": [{"path": "a", "size": "5"}]}),
        ("POST", "/api/models/eve/own/preupload/main", {"files": [{"path": "a", "size": -1}]}),
        ("POST", "/api/models/eve/own/preupload/main", {"files": [{"path": "a", "size": 1, "sample": [1]}]}),
        ("POST", "/api/models/eve/own/preupload/main", {"files": [{"path": "a\0", "size": 1}]}),
        ("POST", "/api/models/eve/own/paths-info/main", {"paths": 5}),
        ("POST", "/api/models/eve/own/paths-info/main", {"paths": [{}]}),
        ("POST", "/api/models/eve/own/tag/main", {"tag": "a\0b"}),
        ("POST", "/api/models/eve/own/tag/main", {"tag": {"a": "b"}}),
        ("PUT", "/api/models/eve/own/settings", {"gated": []}),
        ("POST", "/api/repos/create", {"name": "x", "sdk": {"a": 1}}),
        ("POST", "/api/repos/create", {"name": "x\0y"}),
        ("POST", "/api/repos/create", {"name": ["x"]}),
        ("POST", "/eve/own.git/info/lfs/objects/batch", {"operation": "upload", "objects": 5}),
        ("POST", "/eve/own.git/info/lfs/objects/batch", {"operation": "upload", "objects": ["x"]}),
        ("POST", "/eve/own.git/info/lfs/objects/batch", {"operation": "upload", "objects": [{"oid": "0" * 64}]}),
        (
            "POST",
            "/eve/own.git/info/lfs/objects/batch",
            {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 1 << 70}]},
        ),
        ("POST", "/api/models/eve/own/commit/main", lines(HEADER, {"key": "file", "value": 5})),
        ("POST", "/api/models/eve/own/commit/main", lines(HEADER, {"key": ["x"], "value": {"path": "a"}})),
        (
            "POST",
            "/api/models/eve/own/commit/main",
            lines(HEADER, {"key": "file", "value": {"path": "a", "content": 5, "encoding": "base64"}}),
        ),
        (
            "POST",
            "/api/models/eve/own/commit/main",
            lines(HEADER, {"key": "file", "value": {"path": "a/" * 50_000 + "a", "content": ""}}),
        ),
        ("POST", "/api/models/eve/own/commit/main", lines({"key": "header", "value": [["summary", "x"]]})),
    ],
)
def test_odd_values_are_refused(hub: LocalHub, method: str, address: str, body: object) -> None:
    assert ask(hub, method, address, body)[0] == 400


def test_null_fields_leave_a_collection_readable(hub: LocalHub) -> None:
    slug = ask(hub, "POST", "/api/collections", {"title": "list"})[1]["slug"]
    body = {"items": None, "key": None, "unknown": None, "title": None, "position": 1.5}
    assert ask(hub, "PATCH", f"/api/collections/{slug}", body)[0] == 200
    assert ask(hub, "GET", "/api/collections")[1][0]["title"] == "list"


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/api/models/eve/own/tree/main/a%00b", 400),
        ("/api/models/eve/own/revision/a%00b", 400),
        ("/api/models/eve/own%00", 400),
        ("/api/models/e%00/own", 400),
        ("/eve/own/resolve/main/a%00b", 400),
        ("/eve/own/resolve/%00/a", 400),
        ("/%00", 400),
        ("/eve/own/resolve/main/%ff", 400),
        ("/eve/own/resolve/main/%ED%A0%80", 400),
        ("/api/models/eve/own/revision/a%01b", 404),
        ("/api/models/eve/own/revision/%0d%0aSet-Cookie:%20a", 404),
        ("/api/models/eve/own/revision/%F0%9F%98%80", 404),
        ("/api/models/eve/own/tree/main/a%1bb", 404),
        (f"/api/models/eve/own/revision/{'a' * 3000}", 404),
        ("/api/models?limit=%C2%B2&cursor=%C2%B2", 200),
        (f"/api/models?limit={'9' * 5000}&cursor={'9' * 5000}", 200),
        ("/api/models?search=%00&author=%00", 200),
        ("/api/collections/eve/%0a", 404),
    ],
)
def test_odd_addresses_are_answered(hub: LocalHub, address: str, status: int) -> None:
    assert ask(hub, "GET", address)[0] == status


def safetensors(header: object) -> bytes:
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join(f'*{before}' for _ in range(10))}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
ODD_FILES: dict[str, list[str] | list[bytes]] = {
    "README.md": [
        f"---\n{BOMB}---\n",
        "---\na: &a [*a]\n---\n",
        "---\na: .nan\nlicense: .inf\n---\n",
        '---\ntags: ["\\ud800"]\n"\\ud800": 1\n---\n',
        f"---\na: 0x{'f' * 8000}\n---\n",
        f"---\na: {'[' * 3000}\n---\n",
        "---\na: 2001-99-99\n---\n",
    ],
    "config.json": [
        '{"architectures": NaN, "model_type": Infinity}',
        '{"architectures": ["\\ud800"]}',
        "[" * 100_000,
        '{"model_type": ' + "[" * 900 + "]" * 900 + "}",
    ],
    "model.safetensors": [
        safetensors({"a": {"dtype": "F32", "shape": [1e308, 1e308]}}),
        safetensors({"a": {"dtype": "F32", "shape": [10**4000]}}),
        safetensors({"a": {"dtype": "\ud800", "shape": [1]}}),
        safetensors({"a": {"dtype": "F32", "shape": [-1]}}),
        safetensors([1]),
    ],
}


@pytest.mark.parametrize(
    ("path", "content"), [(path, content) for path, contents in ODD_FILES.items() for content in contents]
)
def test_repos_with_odd_files_are_described(hub: LocalHub, path: str, content: str | bytes) -> None:
    raw = content if isinstance(content, bytes) else content.encode()
    repo = f"eve/odd-{hashlib.sha256(raw).hexdigest()[:12]}"
    eve = HfApi(hub.endpoint, token="hf_eve")
    eve.create_repo(repo)
    if path == "README.md":
        assert ask(hub, "POST", "/api/validate-yaml", {"content": content})[0] in (200, 400)
        entry = {"key": "file", "value": {"path": path, "content": content}}
        assert ask(hub, "POST", f"/api/models/{repo}/commit/main", lines(HEADER, entry))[0] == 200
    else:
        eve.create_commit(repo, [CommitOperationAdd(path, raw)], commit_message="x")
    assert ask(hub, "GET", f"/api/models/{repo}")[0] == 200
    assert ask(hub, "GET", "/api/models?full=1&config=1")[0] == 200
    eve.delete_repo(repo)
