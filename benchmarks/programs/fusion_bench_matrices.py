"""Run by the interpreter of fusion_bench's environment: OPCM over single weight matrices, by both versions of its code.

    python fusion_bench_matrices.py ALPHA OUT NAME,... BASE MODEL...

BASE and MODEL are safetensors files. OUT gets the accumulated delta of every matrix after every step, as `repaired` by
the installed code, and as `released` by its first version. That one cleared `.diag()`, which is a copy of the diagonal.
Both run in float32, as they are used, and in float64. λ stays 1: it scales the whole model and turns no direction.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from unittest.mock import patch

import torch
from fusion_bench.method.opcm.opcm import OPCMForCLIP
from safetensors import safe_open
from safetensors.torch import save_file


def deltas(alpha: float, base: torch.Tensor, models: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Yield the accumulated delta after every step."""
    method = OPCMForCLIP(alpha=alpha, shuffle_order=False)
    method.previous_lambda_t = method.lambda_t = 1
    merged = models[0]
    yield merged - base
    for model in models[1:]:
        merged = method.merge_linear_weights(merged, base, model, param_name="", alpha=alpha)
        yield merged - base


def read(path: str, name: str) -> torch.Tensor:
    """Return one tensor of a file."""
    with safe_open(path, "pt") as stored:
        return stored.get_tensor(name)


def main(alpha: str, out: str, names: str, base: str, *models: str) -> None:
    """Merge every matrix by both versions."""
    torch.set_num_threads(1)
    versions = {"repaired": torch.Tensor.diagonal, "released": torch.Tensor.diag}
    found = {}
    for name in names.split(","):
        for dtype in (torch.float32, torch.float64):
            start, *others = (read(path, name).to(dtype) for path in (base, *models))
            for version, diagonal in versions.items():
                with patch.object(torch.Tensor, "diagonal", diagonal):
                    for step, delta in enumerate(deltas(float(alpha), start, others), start=1):
                        found[f"{version}/{str(dtype).removeprefix('torch.')}/{step}/{name}"] = delta.contiguous()
    save_file(found, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
