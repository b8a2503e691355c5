"""Folders that are made once for all processes of a test run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]


def make_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that the first process which asks for it fills; nobody may change its files.

    Args:
        tmp_path_factory: The fixture of pytest. Its folder is one for each process of pytest-xdist.
        name: Name of the folder.
        make: Fills an empty folder.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    shared.mkdir(exist_ok=True)
    folder, partial = shared / name, shared / f"{name}.partial"
    with FileLock(shared / f"{name}.lock"):
        if not folder.exists():
            partial.mkdir()
            make(partial)
            partial.rename(folder)
    return folder
