"""Operations of a commit on a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hubmerge.localhub.records import FileEntry, Tree
from hubmerge.localhub.refusals import BadRequest, EntryMissing, TooLarge

MAX_PATH_CHARACTERS = 4096
MAX_PATH_PARTS = 100
MOST_FILES = 200_000
"""Files of a repo at one commit."""


@dataclass(frozen=True)
class Put:
    """Add or replace a file."""

    path: str
    entry: FileEntry


@dataclass(frozen=True)
class Delete:
    """Remove a file, or a folder with its content."""

    path: str
    folder: bool


Operation = Put | Delete


def check_path(path: object) -> str:
    """Return `path` if git can check it out.

    Raises:
        BadRequest: it is not text, is empty, or has parts that git refuses.
    """
    if not isinstance(path, str) or not path:
        raise BadRequest("A file operation has no path.")
    parts = path.split("/")
    if len(path) > MAX_PATH_CHARACTERS or len(parts) > MAX_PATH_PARTS:
        raise BadRequest(
            f"A file path is too long: expected at most {MAX_PATH_CHARACTERS} characters and {MAX_PATH_PARTS} parts."
        )
    if any(part in ("", ".", "..", ".git") for part in parts) or "\0" in path or "\\" in path:
        raise BadRequest(f"Invalid file path: {path!r}.")
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(f"Invalid file path: {path!r}.") from error
    return path


def apply_operations(tree: Tree, operations: Sequence[Operation]) -> dict[str, FileEntry]:
    """Return the tree after the operations, applied in order.

    Raises:
        BadRequest: a path would be both a file and a folder.
        EntryMissing: a path to delete does not exist.
        TooLarge: there would be too many files.
    """
    after = dict(tree)
    for operation in operations:
        path = operation.path
        if isinstance(operation, Put):
            after[path] = operation.entry
        elif operation.folder:
            inside = [name for name in after if name.startswith(path + "/")]
            if not inside:
                raise EntryMissing(f"Entry {path}/ does not exist.")
            for name in inside:
                del after[name]
        elif path in after:
            del after[path]
        else:
            raise EntryMissing(f"Entry {path} does not exist.")
    if len(after) > max(MOST_FILES, len(tree)):
        raise TooLarge(f"The repo would have {len(after)} files: expected at most {MOST_FILES}.")
    check_folders(after)
    return after


def check_folders(tree: Tree) -> None:
    """Check that no path of a tree is both a file and a folder.

    Raises:
        BadRequest: a path is both.
    """
    for path in tree:
        folder = path.rpartition("/")[0]
        while folder:
            if folder in tree:
                raise BadRequest(f"{folder!r} would be both a file and a folder (it contains {path!r}).")
            folder = folder.rpartition("/")[0]
