"""Environments of the programs that hubmerge is compared with, each its own, made when it is first asked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from measuring import REPOSITORY

# The pins are what was measured; without them pip goes back through many releases for minutes.
PEERS: Mapping[str, Sequence[str]] = {
    "fusion_bench": ("fusion_bench==0.2.33", "transformers<5"),
    "mergekit": ("mergekit==0.1.5",),
}


def environment(folder: Path, name: str) -> Path:
    """Return the `bin` folder of a peer's environment below `folder`, with the very torch that hubmerge runs on."""
    home = folder / "peers" / name
    ready = home / ".installed"
    if not ready.is_file():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        pip = [home / "bin" / "python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, torch_pin()], check=True)
        subprocess.run([*pip, torch_pin(), *PEERS[name]], check=True)
        ready.touch()
    return home / "bin"


def torch_pin() -> str:
    """Return the torch of constraints.txt."""
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("torch=="))
