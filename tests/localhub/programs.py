"""Embedded Hub as a separate program."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def server(root: Path) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """Run a Hub as a separate program, and yield its process, endpoint and token."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hubmerge.localhub", "--root", str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said: dict[str, str] = {}
    for line in process.stdout:
        if found := re.search(r"(HF_\w+)=(\S+)", line):
            said[found[1]] = found[2]
        if "HF_TOKEN" in said:
            break
    try:
        yield process, said["HF_ENDPOINT"], said["HF_TOKEN"]
    finally:
        process.kill()
        process.communicate()
