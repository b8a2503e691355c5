"""Merge methods and their parameters are known without torch and numpy."""

from __future__ import annotations

import subprocess
import sys


def test_methods_are_imported_without_torch_and_numpy() -> None:
    code = (
        "import sys; from hubmerge.methods import METHODS\n"
        "assert METHODS[0].Parameters().model_dump()\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
        "from hubmerge.support.lazy import torch\n"
        "import torch as real\n"
        "assert torch.float64 is real.float64\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
