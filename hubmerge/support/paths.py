"""The user's cache folder, and checks of file names that come from an untrusted list."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import platformdirs


def user_cache_folder(name: str) -> Path:
    """Return a folder of hubmerge in the user's cache, such as `~/.cache/hubmerge/NAME`; it need not exist."""
    return platformdirs.user_cache_path("hubmerge") / name


def is_inside(file: str) -> bool:
    """Return whether a file name stays inside the folder it is joined to, on any operating system.

    >>> is_inside("shards/model.safetensors"), is_inside("../model.safetensors"), is_inside("/model.safetensors")
    (True, False, False)
    """
    path = PurePosixPath(file)
    odd = "\\" in file or ":" in file or not file.isprintable()
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and not odd
