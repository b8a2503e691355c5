"""Joint methods over a base model and its checkpoints: hubmerge against mergekit-yaml.

    python benchmarks/mergekit_joint.py --folder ~/.cache/hubmerge/benchmarks
    python benchmarks/mergekit_joint.py --folder ... --shape llama-1b     # 1.2 billion, 20 GB of disk
    python benchmarks/mergekit_joint.py --folder ... --shape clip-b32     # eight vision towers

Both programs read the same folders and the same recipe, on as many CPUs, and write one model; for each method they take
turns. hubmerge also hashes what it writes, flushes it to the disk, and checks that transformers loads the model. It
remembers the digests of the inputs; `--first` measures a run that does not. `llama-68m` has two checkpoints and
`llama-1b` three; methods for two models get two. All files are read once before each run, so that both programs find
the page cache alike. The towers are those of CLIP as a model of their own, with the architecture that mergekit infers.

Results are lines of a JSON file. Methods that it has are left out, so a run that was stopped goes on when it is started
again; `--repeat 2` measures each method until there are two results. `--python` names a Python that has mergekit 0.1.5;
without it, one is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from joint_models import SHAPES
from measuring import Cost, hubmerge, hubmerge_environment, machine, markdown, measure
from peers import environment

THEIRS, OURS, FIRST = "mergekit-yaml", "hubmerge run", "hubmerge run, the first time"
SORTING = ("ties", "dare_ties", "della", "della_linear", "breadcrumbs", "breadcrumbs_ties", "sce", "arcee_fusion")
ORDER = (
    "dare_ties",
    "della",
    "della_linear",
    "breadcrumbs_ties",
    "arcee_fusion",
    "slerp",
    "nuslerp",
    "nearswap",
    "sce",
)
"""Methods that are measured first."""

SUM = {"normalize": True}
METHODS: dict[str, tuple[int | None, dict[str, object], dict[str, object]]] = {
    "linear": (None, {"weight": 0.5}, {}),
    "slerp": (1, {}, {"t": 0.4}),
    "nuslerp": (2, {"weight": 0.5}, {}),
    "multislerp": (None, {"weight": 0.5}, {}),
    "karcher": (None, {}, {}),
    "task_arithmetic": (None, {"weight": 0.5}, {}),
    "ties": (None, {"weight": 0.5, "density": 0.5}, SUM),
    "dare_linear": (None, {"weight": 0.5, "density": 0.5}, {}),
    "dare_ties": (None, {"weight": 0.5, "density": 0.5}, {}),
    "della": (None, {"weight": 0.5, "density": 0.5}, SUM),
    "della_linear": (None, {"weight": 0.5, "density": 0.5}, {}),
    "breadcrumbs": (None, {"weight": 0.5, "density": 0.9}, {}),
    "breadcrumbs_ties": (None, {"weight": 0.5, "density": 0.9}, {}),
    "sce": (None, {}, {"select_topk": 0.5}),
    "model_stock": (None, {}, {}),
    "nearswap": (1, {}, {"t": 0.001}),
    "arcee_fusion": (1, {}, {}),
    "ram": (None, {}, {}),
    "ramplus_tl": (None, {}, {}),
    "passthrough": (1, {"scale": 0.5}, {}),
}
"""Number of models besides the base model (None: all), parameters of each, and parameters of the merge."""

WITHOUT_BASE = frozenset({"linear", "karcher", "passthrough"})


def recipe(method: str, base: Path, models: Sequence[Path], dtype: str) -> dict[str, object]:
    """Return one recipe for both programs."""
    count, own, shared = METHODS[method]
    entries = [{"model": str(model), **({"parameters": own} if own else {})} for model in models[:count]]
    found: dict[str, object] = {"merge_method": method, "models": entries, "dtype": dtype}
    if method not in WITHOUT_BASE:
        found["base_model"] = str(base)
    return found | ({"parameters": shared} if shared else {})


def agreement(first: Path, second: Path) -> float:
    """Return the share of elements of two models that are not equal."""
    import torch
    from safetensors import safe_open

    with safe_open(first, "pt") as ours, safe_open(second, "pt") as theirs:
        names = set(ours.keys())
        if names != set(theirs.keys()):
            raise RuntimeError(f"other tensors: {sorted(names ^ set(theirs.keys()))[:3]}")
        other = total = 0
        for name in names:
            one = ours.get_tensor(name)
            other, total = other + int(torch.count_nonzero(one != theirs.get_tensor(name))), total + one.numel()
    return other / total


def warm(folders: Sequence[Path]) -> None:
    """Read files once, without keeping them."""
    for folder in folders:
        with (folder / "model.safetensors").open("rb", buffering=0) as stream:
            while stream.read(64 << 20):
                pass


def run_pair(method: str, options: argparse.Namespace, folders: Sequence[Path]) -> dict[str, object]:
    """Measure mergekit, then hubmerge, and compare their results."""
    folder, cpus, shape = options.folder, options.cpus, SHAPES[options.shape]
    used = folders[: 1 + (METHODS[method][0] or shape.checkpoints)]
    work = Path(tempfile.mkdtemp(prefix="work-", dir=folder))
    try:
        path, ours = work / "recipe.yaml", work / "ours.yaml"
        written = recipe(method, used[0], used[1:], shape.dtype)
        path.write_text(json.dumps(written), encoding="utf-8")
        both = method in {"linear", "task_arithmetic", "ties"}
        ours.write_text(json.dumps(written | ({"form": "joint"} if both else {})), encoding="utf-8")
        log = folder / "logs" / f"{options.shape}-{method}.txt"
        command: list[str | Path] = [options.program, path, work / "theirs", "--no-copy-tokenizer", "--quiet"]
        threads = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(cpus)}
        warm(used)
        costs = {THEIRS: measure(command, cpus=cpus, log=log, environment=threads)}
        for run in (FIRST, OURS) if options.first else (OURS,):
            cache = work / "cache" if options.first else folder / "cache"
            if run == OURS:  # asks for the digests that it remembers
                known = hubmerge_environment(cache)
                plan = [sys.executable, "-m", "hubmerge", "plan", ours]
                measure(plan, cpus=cpus, log=log, environment=known)
            shutil.rmtree(work / "ours", ignore_errors=True)
            warm(used)
            command = [*hubmerge(ours, work / "runs"), "--out", work / "ours"]
            costs[run] = measure(command, cpus=cpus, log=log, environment=hubmerge_environment(cache))
            shutil.rmtree(work / "runs")
        pair = [work / side / "model.safetensors" for side in ("ours", "theirs")]
        compare = [sys.executable, __file__, "--compare", *pair]
        unequal = float(subprocess.run(compare, check=True, capture_output=True, text=True).stdout)
        told = {name: asdict(cost) for name, cost in costs.items()}
        load = os.getloadavg()[0]
        return {"method": method, "cpus": cpus, "costs": told, "unequal": unequal, "load": load, "code": options.code}
    finally:
        shutil.rmtree(work, ignore_errors=True)


def lines_of(results: Path) -> list[dict[str, object]]:
    """Return the results so far."""
    return [json.loads(line) for line in results.read_text("utf-8").splitlines()] if results.is_file() else []


def table(results: Path) -> str:
    """Return the measurements so far, with the smallest value of each."""
    rows = []
    for method in METHODS:
        mine = [line for line in lines_of(results) if line["method"] == method]
        if not mine:
            continue
        theirs, ours = (Cost.least([Cost(**line["costs"][name]) for line in mine]) for name in (THEIRS, OURS))  # type: ignore[index]
        cells = []
        for figure in ("wall_seconds", "cpu_seconds", "own_megabytes"):
            one, other = getattr(theirs, figure), getattr(ours, figure)
            cells += [f"{one:.1f}" if one < 100 else f"{one:.0f}", f"{other:.1f}" if other < 100 else f"{other:.0f}"]
            cells.append(f"{other / one:.2f}")
        disk = [f"{cost.read_gigabytes:.1f} + {cost.written_gigabytes:.1f}" for cost in (theirs, ours)]
        rows.append([f"`{method}`", *cells, *disk, f"{100 * max(line['unequal'] for line in mine):.2f} %"])  # type: ignore[type-var, operator]
    parts = ["mergekit", "hubmerge", "ratio"]
    header = ["method", *(f"{unit}: {part}" for unit in ("wall s", "CPU s", "MB") for part in parts)]
    header += ["disk GB: mergekit", "hubmerge", "unequal"]
    return markdown(header, rows) + f"\n\n{machine()}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="checkpoints, environments, results")
    parser.add_argument("--shape", choices=SHAPES, default="llama-68m")
    parser.add_argument("--python", type=Path, help="a Python that has mergekit 0.1.5")
    methods = [*ORDER, *(method for method in METHODS if method not in ORDER)]
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=methods)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=1, help="results for each method")
    parser.add_argument("--first", action="store_true", help="also measure runs that remember nothing")
    parser.add_argument(
        "--code", default="", help="note about the code that is measured; results of others are kept apart"
    )
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--compare", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.compare:
        print(agreement(*options.compare))
        return
    options.folder = options.folder.expanduser().resolve()
    label = f"-{options.code}" if options.code else ""
    results = options.folder / "results" / f"{options.shape}-{options.cpus}{label}.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    if not options.table:
        programs = options.python.parent if options.python else environment(options.folder, "mergekit")
        options.program = programs / "mergekit-yaml"
        folders = SHAPES[options.shape].write(options.folder)
        for count in range(1, options.repeat + 1):
            for method in options.methods:
                if sum(line["method"] == method for line in lines_of(results)) >= count:
                    continue
                row = run_pair(method, options, folders)
                print(row, flush=True)
                with results.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
