"""Requests of a browser to the embedded Hub, and a repo with files to look at."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from hubmerge.localhub import LocalHub

Names = Callable[..., str]
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
CARD = """---
license: apache-2.0
tags: [merge, "<b>bold</b>"]
more: {inner: nested}
---
# Merged *model*

| task | score |
|---|---:|
| digits | 81.2 |

![scores](./plots/scores.png) [notes](notes.txt "n") [base](/local/base/tree/main) [paper](https://example.org/p?q=1)
"""


def ask(hub: LocalHub, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    request = urllib.request.Request(hub.endpoint + path, method=method, headers={**BROWSER, **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def page(hub: LocalHub, path: str, status: int = 200) -> str:
    answered, media_type, text = ask(hub, path)
    assert (answered, media_type) == (status, "text/html; charset=utf-8")
    assert text.startswith("<!doctype html>")
    assert text.endswith("</html>\n")
    return text


def links(text: str) -> list[str]:
    return re.findall(r'href="([^"]*)"', text)


@pytest.fixture
def api(local_hub: LocalHub) -> HfApi:
    return HfApi()


@pytest.fixture
def repo(api: HfApi, repo_name: Names) -> str:
    name = api.create_repo(repo_name("merged")).repo_id
    files = {"README.md": CARD.encode(), "notes.txt": b"12345", "plots/scores.png": b"\x89PNG" + bytes(2000)}
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    api.create_commit(name, operations, commit_message="Step 8 & last")
    api.create_tag(name, tag="step-08")
    return name
