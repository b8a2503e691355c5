"""Types of the fixtures, and the content of a published file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Command = Callable[..., tuple[int, str, str]]
Names = Callable[..., str]
Verify = Callable[..., tuple[int, str, str]]
Copy = Callable[..., str]


def published(repo: str, name: str, revision: str = "main") -> bytes:
    """Return the content of a file of a repo."""
    from huggingface_hub import hf_hub_download  # reads HF_ENDPOINT when it is imported, which is set later

    return Path(hf_hub_download(repo, name, revision=revision)).read_bytes()
