"""Lock of a folder that a command writes, against other commands on this machine."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from hubmerge.errors import MachineError
from hubmerge.support.paths import user_cache_folder


@contextlib.contextmanager
def locked_folder(folder: Path, option: str) -> Iterator[None]:
    """Lock a folder until the block ends. The file of the lock is in the user's cache, not in the folder.

    Args:
        folder: the folder; it need not exist.
        option: the option that names it, for the message.

    Raises:
        MachineError: another command is writing the folder, or the lock cannot be made.
    """
    name = hashlib.sha256(str(folder.resolve()).encode(errors="surrogateescape")).hexdigest()[:32]
    lock = FileLock(user_cache_folder("locks") / f"{name}.lock", blocking=False, thread_local=False)
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise MachineError(
            f"{option} {folder}: another command is writing this folder",
            hint=f"wait for it to end, or choose another {option}",
            file=str(folder),
        ) from error
    except OSError as error:
        raise MachineError(
            f"{lock.lock_file}: {error.strerror}", hint="make the folder writable", file=lock.lock_file
        ) from error
    try:
        yield
    finally:
        lock.release()
