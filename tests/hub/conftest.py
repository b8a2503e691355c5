"""Fixtures of the tests of hubmerge.hub: repos on the embedded Hub, and requests that fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.reliability.conftest import disturb, request_hook, waits

__all__ = ["disturb", "request_hook", "waits"]


@dataclass(frozen=True)
class Repo:
    """A model repo and its newest commit."""

    name: str
    commit: str


@pytest.fixture
def make_repo(repo_name: Callable[..., str]) -> Callable[..., Repo]:
    """Create a model repo with files, given by path and content."""
    from huggingface_hub import CommitOperationAdd, HfApi

    def make(files: dict[str, bytes], *, name: str | None = None, private: bool = False) -> Repo:
        repo = name or repo_name("model")
        api = HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        operations = [CommitOperationAdd(path, content) for path, content in files.items()]
        return Repo(repo, api.create_commit(repo, operations, commit_message="Add files").oid)

    return make
