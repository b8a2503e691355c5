"""Tests of odd JSON, addresses, cards, configs and weights."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from hubmerge.localhub import LocalHub
from tests.localhub.hostile import HEADER, ask, lines, serve_users
from tests.localhub.planting import plant


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with serve_users(tmp_path_factory.mktemp("hub")) as hub:
        HfApi(hub.endpoint, token="hf_eve").create_discussion("eve/own", title="a discussion")
        yield hub


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
        f"{repo}/branch/dev",
        f"{repo}/discussions",
        f"{repo}/discussions/1/comment",
        f"{repo}/discussions/1/title",
        f"{repo}/discussions/1/status",
        f"{repo}/discussions/1/merge",
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
        ("/api/models/..%2F../users.json", 404),
        ("/api/models/%2e%2e%2F%2e%2e/users.json/tree/main", 404),
        ("/..%2F../users.json/resolve/main/a", 404),
        ("/api/models/eve/own/discussions?p=%C2%B2&type=%00&status=%ff", 200),
        ("/api/models/eve/own/discussions/%0a", 404),
        ("/eve/own/raw/main/%00", 400),
        ("/eve/own/raw/main/%ed%a0%80", 400),
        ("/api/nothing/%1b%5b31m/%0d%0a", 501),
        ("/api/nothing/%ff", 501),
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
        f"---\na: {'[' * 1200}\n---\n",
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
        assert ask(hub, "POST", f"/api/models/{repo}/commit/main", lines(HEADER, entry))[0] in (200, 400)
        plant(hub, repo, path, raw)
    else:
        eve.create_commit(repo, [CommitOperationAdd(path, raw)], commit_message="x")
    assert ask(hub, "GET", f"/api/models/{repo}")[0] == 200
    assert ask(hub, "GET", "/api/models?full=1&config=1")[0] == 200
    eve.delete_repo(repo)


def test_messages_have_no_control_characters(hub: LocalHub) -> None:
    for address in ("/api/%1b%5b31m", "/x/y/z/%1b%5b31m%c2%9b", "/api/models/eve/own/revision/%1b%5b2J"):
        said = ask(hub, "GET", address)[1]["error"]
        assert "?" in said
        assert said.isprintable()
