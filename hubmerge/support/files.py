"""Atomic writes of files and folders: each appears whole or not at all, even after a kill or a power failure.

A file is written under a temporary name, flushed to the disk and renamed; then its folder is flushed, so that the
new name lasts as well. A reader sees the old content or the new content, never a part. Temporary names begin with
a dot, and the rename needs them on the file system of the final name.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

from hubmerge.errors import DISK_FULL, MachineError
from hubmerge.support.positions import OPEN_FLAGS

_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

_START_WRITING = 2
"""SYNC_FILE_RANGE_WRITE of sync_file_range(2): write what is not on the disk, and do not wait."""


def partial_path(path: Path) -> Path:
    """Return the temporary name of a file or folder that one process writes at a time: `.NAME.partial`."""
    return path.with_name(f".{path.name}.partial")


def unique_partial_path(path: Path) -> Path:
    """Return a temporary name for `path` that no other process uses, where several may write it at once."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


@contextmanager
def atomic_file(path: Path, *, temporary: Path | None = None, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Open a file that appears as `path` when the block ends without an exception, and not at all otherwise.

    Args:
        path: the final name; a file of that name is replaced. Its folder must exist.
        temporary: the name until then, on the same file system; `partial_path(path)` if left out.
        mode: permissions of a new file, before the umask.

    Raises:
        OSError: the file cannot be written or renamed.

    Example:
        with atomic_file(folder / "index.json") as file:
            file.write(content)
    """
    temporary = partial_path(path) if temporary is None else temporary
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        rename_durably(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes_atomic(path: Path, content: bytes, *, temporary: Path | None = None, mode: int = 0o666) -> None:
    """Replace the content of `path` in one move. The arguments are those of `atomic_file`."""
    with atomic_file(path, temporary=temporary, mode=mode) as file:
        file.write(content)


def write_text_atomic(path: Path, text: str, *, temporary: Path | None = None, mode: int = 0o666) -> None:
    """Replace the content of `path` by `text` in UTF-8 in one move. The arguments are those of `atomic_file`."""
    write_bytes_atomic(path, text.encode("utf-8"), temporary=temporary, mode=mode)


def rename_durably(temporary: Path, path: Path) -> None:
    """Rename a flushed file, or a folder of flushed files, to its final name, and flush the folder it is in."""
    temporary.replace(path)
    sync_folder(path.parent)


def replace_folder(finished: Path, folder: Path) -> None:
    """Rename the folder `finished` to `folder`; a folder of that name is moved away first and removed afterwards."""
    outdated = _outdated(folder)
    shutil.rmtree(outdated, ignore_errors=True)
    if folder.exists():
        folder.rename(outdated)
    rename_durably(finished, folder)
    if outdated.exists():
        shutil.rmtree(outdated)


def remove_folder(folder: Path, *, temporary: Path | None = None) -> None:
    """Remove a folder, or do nothing if there is none; a part never remains under its name.

    Args:
        folder: the folder to remove.
        temporary: a name on the same file system for the time of the removal; beside `folder` if left out.
    """
    outdated = temporary or (folder if folder.name.startswith(".") else _outdated(folder))
    shutil.rmtree(outdated, ignore_errors=True)
    if folder.exists():
        folder.rename(outdated)
        sync_folder(folder.parent)
        shutil.rmtree(outdated)


def make_folder(folder: Path) -> None:
    """Make `folder` and its parents, and flush each folder that gets a new name.

    Raises:
        FileExistsError: a file has the name of one of the folders.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in `folder` to the disk, so that a rename in it lasts."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | OPEN_FLAGS)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def start_flush(descriptor: int, offset: int, nbytes: int) -> None:
    """Start to flush a part of a file to the disk, and do not wait: a later flush of the file has less to do.

    Without Linux, do nothing.
    """
    with suppress(AttributeError, OSError, TypeError):
        _libc().sync_file_range(descriptor, ctypes.c_int64(offset), ctypes.c_int64(nbytes), _START_WRITING)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def write_output(path: Path, text: str) -> None:
    """Write a text as `write_text_atomic` does, to a file that the user named.

    Raises:
        MachineError: the file cannot be written.
    """
    try:
        write_text_atomic(path, text)
    except OSError as error:
        raise write_error(error, path, len(text)) from error


def write_error(error: OSError, path: Path, nbytes: int) -> MachineError:
    """Return the error to raise where a file of `nbytes` bytes cannot be written.

    Args:
        error: the operating system's error.
        path: the file.
        nbytes: the size of the whole file.
    """
    folder, file = path.parent, str(path)
    if error.errno in DISK_FULL:
        return MachineError(
            f"{folder}: not enough space for a file of {nbytes:,} bytes: {error.strerror}",
            hint="free space there or choose a folder on another disk",
            file=file,
        )
    if error.errno in _FORBIDDEN:
        return MachineError(
            f"{folder}: no permission to write a file of {nbytes:,} bytes: {error.strerror}",
            hint="choose a folder you may write to, or correct its permissions",
            file=file,
        )
    return MachineError(
        f"{folder}: cannot write a file of {nbytes:,} bytes: {error.strerror or error}",
        hint="check the folder and its disk",
        file=file,
    )


def _outdated(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.outdated")


def folder_bytes(folder: Path) -> int:
    """Return the size of all files in a folder and its subfolders."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
