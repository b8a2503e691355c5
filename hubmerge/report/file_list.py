"""List of the files of a step, which its report seals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hubmerge.support.hashing import file_digest
from hubmerge.support.names import UNLISTED_FILES
from hubmerge.support.records import record


@record
@dataclass(frozen=True)
class FileRecord:
    """One file of a step: its SHA-256, 64 hex digits, and its size in bytes."""

    sha256: str
    size: int


FileList = dict[str, FileRecord]
"""The files of a step by path, with `/` between folders."""


def list_step_files(folder: Path) -> FileList:
    """Return the files in the folder of a step, except `UNLISTED_FILES`."""
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name: FileRecord(file_digest(path), path.stat().st_size)
        for name, path in paths.items()
        if name not in UNLISTED_FILES
    }
