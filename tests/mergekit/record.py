"""Record what mergekit computes, with its inputs, as JSON.

Run it with a Python that has mergekit 0.1.5: `python tests/mergekit/record.py tests/mergekit/recorded.json [SEED]`.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
CASES: list[dict[str, Any]] = importlib.import_module("cases").CASES
SHAPES: dict[str, tuple[int, ...]] = importlib.import_module("cases").SHAPES


def tensors(seed: int, dtype: torch.dtype) -> list[dict[str, torch.Tensor]]:
    """Return a base model and three models around it."""
    generator = torch.Generator().manual_seed(seed)
    base = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    models = [
        {name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in base.items()}
        for _ in range(3)
    ]
    return [{name: value.to(dtype) for name, value in model.items()} for model in (base, *models)]


def merged(one: dict[str, Any], models: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
    """Return what mergekit computes for a case."""
    merge_tensors = importlib.import_module("mergekit.merge_methods.api").merge_tensors
    chosen = models[0 if one["base"] else 1 : one["models"] + 1]
    base_index = 0 if one["base"] else None
    return {
        name: merge_tensors(
            [model[name] for model in chosen], one["method"], parameters=one["parameters"], base_index=base_index
        ).tolist()
        for name in SHAPES
    }


def main() -> None:
    """Write the recorded values."""
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    models = tensors(seed, torch.float32)
    wide = [{name: value.double() for name, value in model.items()} for model in models]
    found = [merged(one, wide if one["dtype"] == "float64" else models) for one in CASES]
    content = {
        "inputs": [{name: value.tolist() for name, value in model.items()} for model in models],
        "results": [{**one, "values": values} for one, values in zip(CASES, found, strict=True)],
    }
    Path(sys.argv[1]).write_text(json.dumps(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
