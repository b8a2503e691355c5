"""On-disk memo of slow, deterministic lookups, in the user's cache.

An example is what transformers says about a config: to ask it, 140 MB of transformers are imported. The key of an entry
includes the versions that an answer may depend on. Any entry may be removed at any time.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from hubmerge.support.damage import set_aside, set_aside_files_among
from hubmerge.support.files import unique_partial_path, write_text_atomic
from hubmerge.support.paths import user_cache_folder
from hubmerge.support.version import VERSION

FORMAT = 7
"""Raised when the answer to a question changes for another reason than a new version."""

T = TypeVar("T")


def get(kind: str, key: bytes, answer_type: type[T]) -> T | None:
    """Return the stored answer, None if there is none or it is damaged.

    Args:
        kind: the kind of question; part of the file's name.
        key: the whole question.
        answer_type: a dataclass or a plain type, as given to `put`.
    """
    with suppress(OSError, RuntimeError, ValueError, LookupError, TypeError):
        content = json.loads(_file(kind, key).read_bytes())
        stored = content["answer"]
        if content["sha256"] != _answer_digest(stored):
            return None
        return TypeAdapter(answer_type).validate_python(stored)
    return None


def put(kind: str, key: bytes, answer: object) -> None:
    """Store an answer. Do nothing if the cache is full or may not be written: the question is then asked again.

    Args:
        kind: the kind of question; part of the file's name.
        key: the whole question.
        answer: a value that pydantic can write as JSON, such as a dataclass.
    """
    values: Any = TypeAdapter(type(answer)).dump_python(answer, mode="json")
    with suppress(OSError, RuntimeError):
        file = _file(kind, key)
        set_aside_files_among([file.parent])
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            set_aside(file, "a file is expected")
        text = json.dumps({"answer": values, "sha256": _answer_digest(values)})
        write_text_atomic(file, text, temporary=unique_partial_path(file))


def _answer_digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _file(kind: str, key: bytes) -> Path:
    digest = hashlib.sha256(f"{_versions()}\0{kind}\0".encode() + key).hexdigest()
    return user_cache_folder("answers") / f"{kind}-{digest[:40]}.json"


@cache
def _versions() -> str:
    """Return the versions of all packages that an answer may depend on."""
    found = [VERSION, str(FORMAT)]
    for package in ("transformers", "torch"):
        with suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    return ", ".join(found)
