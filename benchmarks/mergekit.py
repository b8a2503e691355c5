"""Linear, task_arithmetic and ties over eight ViT-B/32 towers: hubmerge against mergekit-yaml, and their results.

    python benchmarks/mergekit.py --folder ~/.cache/hubmerge/benchmarks
    python benchmarks/mergekit.py --folder ... --methods linear --repeat 2 --cpus 2

Both programs read the same folders and the same recipe, on as many CPUs; hubmerge twice, for it remembers some of what
it found. Both read all models and write one; hubmerge also hashes what it reads, keeps a state with which the stream
can be extended, and checks that transformers loads the model. mergekit finds no tensor whose name begins with
`vision_model.`, the layout of most published towers, so both read copies without that prefix.

`benchmarks/mergekit_joint.py` does so for the methods that merge all models at once, over models of a Llama shape.

"difference" is the largest one of any element, in units of the largest
float32 step at elements of that size: 1 is one rounding. "apart" counts the elements that differ by more than FEW of
these: where `ties` elects a sign from a sum near zero, or trims at a magnitude that two elements share, the last digit
decides.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from measuring import Cost, hubmerge, hubmerge_environment, machine, markdown, measure
from opcm import stream_folders
from peers import environment

FEW = 16
WEIGHTS = (1.0, 0.5, 0.8, 1.2, 0.7, 0.9, 1.1, 0.6)
METHODS: dict[str, dict[str, object]] = {
    "linear": {},
    "task_arithmetic": {"lambda": 0.3, "normalize": False},
    "ties": {"density": 0.2, "normalize": True, "lambda": 1.0},
}
PREFIX = "vision_model."
PROCESSES = ("mergekit-yaml", "hubmerge run, the first time", "hubmerge run, again")
"""Again: hubmerge remembers what transformers said of the model, and the checksums of files that nobody touched."""


def recipe(method: str, base: Path, models: Sequence[Path]) -> dict[str, object]:
    """One recipe for both; hubmerge wants a base model where mergekit's linear has none."""
    own = {"density": METHODS[method]["density"]} if "density" in METHODS[method] else {}
    shared = {name: value for name, value in METHODS[method].items() if name != "density"}
    found: dict[str, object] = {
        "merge_method": method,
        "base_model": str(base),
        "models": [
            {"model": str(model), "parameters": {"weight": weight, **own}}
            for model, weight in zip(models, WEIGHTS, strict=True)
        ],
        "dtype": "float32",
    }
    return found | ({"parameters": shared} if shared else {})


def without_prefix(folders: Sequence[str], target: Path) -> list[Path]:
    """Return copies of the folders in the layout that mergekit finds, made by a process of their own."""
    copies = [target / Path(folder).name for folder in folders]
    for folder, copy in zip(folders, copies, strict=True):
        if not copy.is_dir():
            subprocess.run([sys.executable, __file__, "--copy", folder, copy], check=True)
    return copies


def copy_without_prefix(folder: Path, copy: Path) -> None:
    """One of them."""
    from safetensors.torch import load_file, save_file

    partial = copy.with_name(f".{copy.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
    shutil.copyfile(folder / "config.json", partial / "config.json")
    partial.rename(copy)


def differences(first: Path, second: Path) -> tuple[float, int]:
    """Return the largest difference in float32 steps, and how many elements differ by more than FEW steps."""
    import numpy as np
    from safetensors.numpy import load_file

    ours, theirs = load_file(first), load_file(second)
    if set(ours) != set(theirs):
        raise RuntimeError(f"other tensors: {sorted(set(ours) ^ set(theirs))[:3]}")
    largest, apart = 0.0, 0
    for name in ours:
        units = np.abs(ours[name] - theirs[name]) / np.spacing(np.abs(theirs[name]).max(initial=1e-30))
        largest, apart = max(largest, float(np.max(units))), apart + int(np.sum(units > FEW))
    return largest, apart


def run_pair(
    method: str, folder: Path, base: Path, models: Sequence[Path], cpus: int
) -> tuple[dict[str, Cost], float, int]:
    """mergekit, hubmerge the first time and again, one after the other, and how far their results are apart."""
    work = Path(tempfile.mkdtemp(prefix="work-", dir=folder))
    try:
        written = recipe(method, base, models)
        ours, theirs = work / "recipe.yaml", work / "mergekit.yaml"
        ours.write_text(json.dumps(written), encoding="utf-8")
        theirs.write_text(
            json.dumps({k: v for k, v in written.items() if k != "base_model" or method != "linear"}), encoding="utf-8"
        )
        program = environment(folder, "mergekit") / "mergekit-yaml"
        logs = folder / "logs"
        command: list[str | Path] = [program, theirs, work / "theirs", "--no-copy-tokenizer", "--quiet"]
        peer = measure(
            command,
            cpus=cpus,
            log=logs / f"mergekit-{method}.txt",
            environment={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(cpus)},
        )
        own = [
            measure(
                [*hubmerge(ours, work / f"runs-{time}"), "--out", work / "ours"],
                cpus=cpus,
                log=logs / f"hubmerge-{method}-{time}.txt",
                environment=hubmerge_environment(work / "cache"),
            )
            for time in ("first", "again")
        ]
        compare = [
            sys.executable,
            __file__,
            "--compare",
            *(work / side / "model.safetensors" for side in ("ours", "theirs")),
        ]
        largest, apart = subprocess.run(compare, check=True, capture_output=True, text=True).stdout.split()
        return dict(zip(PROCESSES, (peer, *own), strict=True)), float(largest), int(apart)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def table(results: Path) -> str:
    """Return the measurements so far, with the smallest value of each."""
    rows = []
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    for method, cpus in sorted({(line["method"], line["cpus"]) for line in lines}):
        mine = [line for line in lines if (line["method"], line["cpus"]) == (method, cpus)]
        costs = {name: Cost.least([Cost(**line["costs"][name]) for line in mine]) for name in PROCESSES}
        theirs = asdict(costs[PROCESSES[0]])
        told = [f"{max(line['difference'] for line in mine):.1f}", str(max(line["apart"] for line in mine))]
        for name, cost in costs.items():
            figures = asdict(cost)
            ratios = [""] * len(figures)
            if name != PROCESSES[0]:
                ratios = [f"{value / theirs[figure]:.2f}" for figure, value in figures.items()]
            absolute = [f"{value:.0f}" for value in figures.values()]
            rows.append([method, name, str(cpus), *absolute, *ratios, *(told if name == PROCESSES[-1] else ("", ""))])
    units = ["CPU s", "wall s", "peak MB"]
    header = ["method", "process", "CPUs", *units, *(f"ratio of {unit}" for unit in units), "difference", "apart"]
    return markdown(header, rows) + f"\n\n{machine()}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="checkpoints, environments, results")
    parser.add_argument("--size", default="b32")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--copy", type=Path, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--compare", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.copy:
        copy_without_prefix(*options.copy)
        return
    if options.compare:
        print(*differences(*options.compare))
        return
    folder = options.folder.expanduser().resolve()
    results = folder / "results" / f"mergekit-{options.size}.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    if not options.table:
        made = stream_folders(folder, options.size, len(WEIGHTS))
        base, *models = without_prefix(made, folder / "checkpoints" / f"{options.size}-unprefixed")
        for _ in range(options.repeat):
            for method in options.methods:
                costs, difference, apart = run_pair(method, folder, base, models, options.cpus)
                told = {"costs": {name: asdict(cost) for name, cost in costs.items()}}
                row = {"method": method, "cpus": options.cpus, **told, "difference": difference, "apart": apart}
                print(row, flush=True)
                with results.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
