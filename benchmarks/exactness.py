"""Distance of hubmerge's accumulated delta from that of the literal form, step by step, on full-size weight matrices.

    python benchmarks/exactness.py --folder ~/.cache/hubmerge/benchmarks --layers 0 5 11

"one step" is the largest difference that a single step makes, both from the state of the literal form; "stream" is that
of the two streams. Both over the length of the accumulated delta, for the worst weight matrix of the chosen layers. The
literal form takes the square U and V of a full SVD in float64.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from kernels import ALPHA, with_svd
from measuring import machine, markdown
from opcm import stream_folders
from safetensors import safe_open

from hubmerge.methods import Opcm, TensorInput
from hubmerge.methods.opcm import OpcmParameters


def matrices(file: Path, layers: Sequence[int]) -> list[str]:
    """Names of the weight matrices of these layers."""
    with safe_open(file, "pt") as stored:
        return [
            name
            for name in stored.keys()  # noqa: SIM118 - not a mapping
            if (found := re.search(r"\.layers\.(\d+)\..*\.weight$", name))
            and int(found[1]) in layers
            and len(stored.get_slice(name).get_shape()) == 2
        ]


def read(file: Path, name: str) -> torch.Tensor:
    """One tensor in float64."""
    with safe_open(file, "pt") as stored:
        return stored.get_tensor(name).to(torch.float64)


def differences(base: Path, models: Sequence[Path], name: str) -> list[tuple[float, float]]:
    """Of one weight matrix after each step: that of the step alone, and that of the streams."""
    method, parameters = Opcm(), OpcmParameters(alpha=ALPHA)
    start = read(base, name)
    literal = ours = read(models[0], name) - start
    found = [(0.0, 0.0)]
    for step, model in enumerate(models[1:], start=2):
        vector = read(model, name) - start
        alone = method.absorb_matrix(TensorInput(literal, vector, parameters, step)).accumulated
        ours = method.absorb_matrix(TensorInput(ours, vector, parameters, step)).accumulated
        literal = literal + with_svd(literal, vector, keep=False)
        length = torch.linalg.vector_norm(literal)
        found.append(
            (float(torch.linalg.vector_norm(alone - literal) / length), float(torch.dist(ours, literal) / length))
        )
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="checkpoints")
    parser.add_argument("--size", default="b32")
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 5, 11])
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    made = stream_folders(options.folder.expanduser().resolve(), options.size, options.models)
    base, *models = (Path(folder) / "model.safetensors" for folder in made)
    found = [differences(base, models, name) for name in matrices(base, options.layers)]
    rows = [
        [str(step + 1), f"{max(one[step][0] for one in found):.0e}", f"{max(one[step][1] for one in found):.0e}"]
        for step in range(1, options.models)
    ]
    print(f"{len(found)} weight matrices\n\n{markdown(['after step', 'one step', 'stream'], rows)}\n\n{machine()}")


if __name__ == "__main__":
    main()
