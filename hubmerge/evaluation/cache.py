"""Files of the cache are complete or absent."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hubmerge.errors import MachineError


@contextmanager
def whole_file(file: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only when the block has ended well.

    Raises:
        MachineError: the file cannot be written: disk full, no permission, no folder.
    """
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as out:
                yield out
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise MachineError(
            f"{file}: cannot be written: {error.strerror or error}",
            hint="free some space, or choose another cache folder",
        ) from error
