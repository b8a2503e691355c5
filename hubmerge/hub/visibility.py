"""Visibility of repos on the Hub: who can read them."""

from __future__ import annotations

from typing import Literal

from huggingface_hub import DatasetInfo, ModelInfo
from huggingface_hub.errors import DisabledRepoError, RepositoryNotFoundError

from hubmerge.hub.client import api
from hubmerge.hub.retry import call

Visibility = Literal["public", "gated", "private"]
"""Who can read a repo: everybody, those whom its owner lets in, or its owner alone."""

STRICTNESS: tuple[Visibility, ...] = ("public", "gated", "private")
"""The values from the least strict one on."""


def visibility_of(info: ModelInfo | DatasetInfo) -> Visibility:
    """Return the visibility in a description of a repo."""
    if info.private:
        return "private"
    return "gated" if info.gated else "public"


def repo_visibility(kind: str, path: str) -> Visibility | None:
    """Return the visibility that a repo has now, or None if this token cannot see the repo.

    Args:
        kind: "model" or "dataset".
        path: the repo, owner/name.

    Raises:
        HubError: the Hub does not respond, or rejects the token.
    """
    describe = api().dataset_info if kind == "dataset" else api().model_info

    def ask() -> Visibility | None:
        try:
            return visibility_of(describe(path))
        except (DisabledRepoError, RepositoryNotFoundError):
            return None

    return call(f"visibility of {kind} {path}", ask, repo=path)
