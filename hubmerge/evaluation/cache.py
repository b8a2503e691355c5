"""Files in the cache, which are complete or absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hubmerge.errors import MachineError
from hubmerge.support.damage import set_aside, set_aside_files_among
from hubmerge.support.files import atomic_file, unique_partial_path, write_text_atomic
from hubmerge.support.hashing import file_digest


def is_cached(file: Path) -> bool:
    """Return True if the cache has a file and it matches its digest; a damaged file is set aside."""
    if not (file.exists() or file.is_symlink()):
        return False
    try:
        if file_digest(file) == _digest_file(file).read_text(encoding="ascii"):
            return True
        problem = "it does not match its digest"
    except (OSError, ValueError) as error:
        problem = f"not readable with its digest: {error}"
    set_aside(file, problem)
    if _digest_file(file).is_dir():
        set_aside(_digest_file(file), "a file is expected")
    return False


def _digest_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


@contextmanager
def cached_file(file: Path) -> Iterator[BinaryIO]:
    """Open a file of the cache for writing; it appears when the block ends without an exception.

    Raises:
        MachineError: the file cannot be written: disk full, no permission, no folder.
    """
    try:
        set_aside_files_among([file.parent])
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file, temporary=unique_partial_path(file)) as out:
            yield out
        digests = _digest_file(file)
        write_text_atomic(digests, file_digest(file), temporary=unique_partial_path(digests))
    except OSError as error:
        raise MachineError(
            f"cannot write {file}: {error.strerror or error}",
            hint="free space on the disk, or choose another folder with --work-dir",
            file=str(file),
        ) from error
