"""Damaged files of the work folder and of caches: set aside under another name, with one line that says so."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

LOGGER = logging.getLogger("hubmerge")
"""Receives one line for each damaged file. The command line shows it as a note."""

SUFFIX = ".damaged"


def set_aside(path: Path, reason: str) -> Path:
    """Rename a damaged file or folder to `NAME.damaged`, say so in one line, and return the new path.

    An older file of the new name is removed, so that at most one is kept.

    Args:
        path: the file or folder; links are renamed themselves.
        reason: what is wrong with it, for the line.

    Raises:
        OSError: it cannot be renamed.
    """
    place = path.with_name(path.name + SUFFIX)
    with suppress(FileNotFoundError):
        remove(place)
        path.rename(place)
        LOGGER.warning("set aside as %s: %s (%s)", place.name, path, reason)
    return place


def set_aside_files_among(folders: Iterable[Path]) -> None:
    """Set aside everything under the names of `folders` that is not a folder."""
    for folder in folders:
        if (folder.exists() or folder.is_symlink()) and not folder.is_dir():
            set_aside(folder, "a folder is expected")


def remove(path: Path) -> None:
    """Remove a file, a link or a folder; do nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
