"""Checks of file names that come from an untrusted list, such as the index of a checkpoint or the files of a repo."""

from __future__ import annotations

from pathlib import PurePosixPath


def is_inside(file: str) -> bool:
    """Return whether a file name stays inside the folder it is joined to, on any operating system.

    >>> is_inside("shards/model.safetensors"), is_inside("../model.safetensors"), is_inside("/model.safetensors")
    (True, False, False)
    """
    path = PurePosixPath(file)
    odd = "\\" in file or ":" in file or not file.isprintable()
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and not odd
