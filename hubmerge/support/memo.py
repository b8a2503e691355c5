"""Answers that take seconds to find and depend on nothing but the question, kept in the user's cache.

What transformers says of a config, for one: to ask it means to import it, 140 MB of it. What one version of it said
once it will say again.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hubmerge.support.files import unique_partial_path, write_text_atomic
from hubmerge.support.version import VERSION

FORM = 1
"""To be raised when a question stays the same and its answer does not, other than by another version."""


def cache_folder(name: str) -> Path:
    """A folder of ours in the user's cache; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hubmerge" / name


def recall(kind: str, question: bytes) -> Any:
    """The answer that was kept, as JSON has it; None if there is none."""
    with suppress(OSError, RuntimeError, ValueError, LookupError, TypeError):
        return json.loads(_file(kind, question).read_bytes())["answer"]
    return None


def remember(kind: str, question: bytes, answer: Any) -> None:
    """Keep an answer; where there is no room for it, or no permission, it is asked again next time."""
    with suppress(OSError, RuntimeError):
        file = _file(kind, question)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(file, json.dumps({"answer": answer}), temporary=unique_partial_path(file))


def _file(kind: str, question: bytes) -> Path:
    digest = hashlib.sha256(f"{_versions()}\0{kind}\0".encode() + question).hexdigest()
    return cache_folder("answers") / f"{kind}-{digest[:40]}.json"


@cache
def _versions() -> str:
    """What may answer otherwise."""
    found = [VERSION, str(FORM)]
    for package in ("transformers", "torch"):
        with suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    return ", ".join(found)
