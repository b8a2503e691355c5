"""Files in the cache, which are complete or absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hubmerge.errors import MachineError
from hubmerge.support.files import atomic_file, unique_partial_path


@contextmanager
def cached_file(file: Path) -> Iterator[BinaryIO]:
    """Open a file of the cache for writing; it appears when the block ends without an exception.

    Raises:
        MachineError: the file cannot be written: disk full, no permission, no folder.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file, temporary=unique_partial_path(file)) as out:
            yield out
    except OSError as error:
        raise MachineError(
            f"cannot write {file}: {error.strerror or error}",
            hint="free space on the disk, or choose another folder with --work-dir",
            file=str(file),
        ) from error
