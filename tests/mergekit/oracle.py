"""mergekit as an oracle of whole merges, where it is installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

MERGEKIT = os.environ.get("HUBMERGE_MERGEKIT_PYTHON")
"""Path of a Python that has mergekit 0.1.5."""

needs_mergekit = pytest.mark.skipif(MERGEKIT is None, reason="HUBMERGE_MERGEKIT_PYTHON names no Python with mergekit")


def merged_by_mergekit(folder: Path, *, tokenizer: bool = False) -> dict[str, torch.Tensor]:
    """Merge `recipe.yaml` of a folder into its subfolder `theirs` with mergekit, and return the merged tensors."""
    program = Path(str(MERGEKIT)).parent / "mergekit-yaml"
    options = [] if tokenizer else ["--no-copy-tokenizer"]
    subprocess.run([program, folder / "recipe.yaml", folder / "theirs", "--quiet", *options], check=True)
    return load_file(folder / "theirs" / "model.safetensors")
