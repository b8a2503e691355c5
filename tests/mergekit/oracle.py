"""mergekit as an oracle of whole merges, where it is installed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
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


def check_equals_mergekit(ours: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Check that mergekit makes equal tensors, to the last bits of float32, from the `recipe.yaml` of a folder."""
    check_equal(ours, merged_by_mergekit(folder))


def check_equal(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> None:
    """Check that two models have equal tensors, to the last bits of float32."""
    assert set(ours) == set(theirs)
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 3e-6
