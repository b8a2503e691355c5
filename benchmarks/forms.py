"""The forms of `opcm` beside both versions of the authors' code, on weight matrices of a ViT-B/32 tower.

    python benchmarks/forms.py --folder ~/.cache/hubmerge/benchmarks --layer 5

For every form: the distance of the accumulated delta from that of each version, over its length, for the worst of the
chosen matrices after the second and the last step. fusion_bench is installed into an environment of its own, and its
code runs in float32, as it is used, and in float64.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from exactness import read
from measuring import REPOSITORY, machine, markdown
from opcm import ALPHA, stream_folders
from peers import environment
from safetensors.torch import load_file

from hubmerge.methods import Opcm, TensorInput
from hubmerge.methods.opcm import OpcmParameters

PARTS = ("self_attn.q_proj", "mlp.fc1", "mlp.fc2")
FORMS: Mapping[str, Mapping[str, str]] = {
    "form: paper": {"form": "paper"},
    "form: paper, rank_rule: fusion_bench": {"diagonal": "remove", "rank_rule": "fusion_bench"},
    "form: released": {"form": "released"},
    "form: stable": {"form": "stable"},
}
VERSIONS = ("repaired", "released")


def folded(files: Sequence[Path], name: str, keys: Mapping[str, str]) -> list[torch.Tensor]:
    """Return the accumulated delta of a matrix after every step, merged by hubmerge."""
    method, parameters = Opcm(), OpcmParameters.model_validate({"alpha": ALPHA, **keys})
    start, first, *others = (read(file, name) for file in files)
    found = [first - start]
    for step, model in enumerate(others, start=2):
        tensor = TensorInput(found[-1], model - start, parameters, step)
        found.append(method.absorb_matrix(tensor).accumulated)
    return found


def released(folder: Path, files: Sequence[Path], names: Sequence[str]) -> Mapping[str, torch.Tensor]:
    """Return the accumulated deltas of both versions of the authors' code."""
    program = REPOSITORY / "benchmarks" / "programs" / "fusion_bench_matrices.py"
    with tempfile.TemporaryDirectory(dir=folder) as work:
        out = Path(work, "deltas.safetensors")
        python = environment(folder, "fusion_bench") / "python"
        subprocess.run(
            [python, program, str(ALPHA), out, ",".join(names), *files], check=True, stdout=subprocess.DEVNULL
        )
        return load_file(out)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="checkpoints and the environment of fusion_bench")
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--layer", type=int, default=5)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    folder = options.folder.expanduser().resolve()
    files = [Path(one) / "model.safetensors" for one in stream_folders(folder, "b32", options.models)]
    names = [f"vision_model.encoder.layers.{options.layer}.{part}.weight" for part in PARTS]
    theirs = released(folder, files, names)
    columns = [
        (version, dtype, step)
        for version in VERSIONS
        for dtype in ("float64", "float32")
        for step in (2, options.models)
    ]
    rows = []
    for label, keys in FORMS.items():
        ours = {name: folded(files, name, keys) for name in names}
        row = [label]
        for version, dtype, step in columns:
            pairs = [(ours[name][step - 1], theirs[f"{version}/{dtype}/{step}/{name}"].double()) for name in names]
            row.append(f"{max(float((one - other).norm() / other.norm()) for one, other in pairs):.0e}")
        rows.append(row)
    header = ["hubmerge", *(f"{version}, {dtype}, step {step}" for version, dtype, step in columns)]
    print(f"{markdown(header, rows)}\n\n{machine()}")


if __name__ == "__main__":
    main()
