"""Hub with several users, and requests that no client library sends."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from huggingface_hub import HfApi

from hubmerge.localhub import LocalHub

USERS = [
    {"name": "root", "token": "hf_root", "admin": True},
    {"name": "ann", "token": "hf_ann", "orgs": ["team"]},
    {"name": "bob", "token": "hf_bob", "orgs": ["team"]},
    {"name": "eve", "token": "hf_eve"},
    {"name": "reader", "token": "hf_reader", "role": "read", "orgs": ["ann"]},
    {"name": "looks", "token": "hf_looks", "role": "fineGrained", "scopes": {"ann": ["repo.content.read"]}},
    {"name": "talks", "token": "hf_talks", "role": "fineGrained", "scopes": {"talks": ["discussion.write"]}},
]
SECRET = Random(7).randbytes(2000)
SHA256 = hashlib.sha256(SECRET).hexdigest()
HEADER = {"key": "header", "value": {"summary": "x"}}
LINK = {"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", "oid": SHA256, "size": len(SECRET)}}


@contextmanager
def serve_users(root: Path) -> Iterator[LocalHub]:
    """Run a Hub with several users, and with private, gated and public repos."""
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
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read() or b"{}")


def lines(*items: object) -> bytes:
    """Return the body of a commit."""
    return b"\n".join(json.dumps(item).encode() for item in items)
