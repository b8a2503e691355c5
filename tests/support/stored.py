"""Answers that the memo has stored in the user's cache."""

from __future__ import annotations

from pathlib import Path

from hubmerge.support.paths import user_cache_folder


def stored_answers() -> list[Path]:
    """Return the files of all stored answers."""
    return sorted(user_cache_folder("answers").glob("*"))
