"""Files of the cache are complete or absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hubmerge.errors import MachineError
from hubmerge.support.files import atomic_file, unique_partial_path


@contextmanager
def whole_file(file: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only when the block has ended well.

    Raises:
        MachineError: the file cannot be written: disk full, no permission, no folder.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file, temporary=unique_partial_path(file)) as out:
            yield out
    except OSError as error:
        raise MachineError(
            f"{file}: cannot be written: {error.strerror or error}",
            hint="free some space, or choose another cache folder",
        ) from error
