"""Alpha, drift and interference of OPCM on streams of several lengths.

    python benchmarks/study/interference.py measure RESULTS.jsonl RECIPE.yaml    continues where it stopped
    python benchmarks/study/interference.py tell RESULTS.jsonl OUT.png

Lengths that the stream does not have are left out. Drift is the distance of the merged model from the base model over
the mean length of the task vectors. Interference is how far the merged delta D is from acting like each checkpoint on
the inputs that its task vector reads, without data: the mean over the entries i of
sum |(D - t_i) t_i^T|^2 / sum |t_i t_i^T|^2, sums over the weight matrices. A merged model that acts like every
checkpoint has 0, the base model 1. Both are of the weight matrices alone.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import torch
import yaml
from json_lines import Line, append, read
from matplotlib.figure import Figure

from hubmerge.executor.read_out import ReadOut, delta_pieces
from hubmerge.executor.reading import read_task_vector
from hubmerge.executor.state import State
from hubmerge.methods import method_named
from hubmerge.stream.catalog import installed_catalog
from hubmerge.study import load_study
from hubmerge.study.bench import Bench
from hubmerge.study.cells import ordered
from hubmerge.study.merge_cell import merged_steps
from hubmerge.support.progress import SilentProgress

LENGTHS = (8, 14, 20)
ALPHAS = (0.5, 0.1, 0.9, 0.3, 0.7, 0.2, 0.4, 0.6, 0.8)
ORDERS = (0, 1, 2)
OTHERS = ("adaptive_scale", "weight_average", "wudi")
"""Methods to compare with, at their defaults; no order changes their result."""


def measure(results: Path, recipe: Path) -> None:
    """Merge what is not in `results`, and append a line for each length, method, alpha and order."""
    done = {(line["tasks"], line["method"], line["alpha"], line["order"]) for line in read(results)}
    planned: list[tuple[int, str, float | None, int]] = []
    for order in ORDERS:
        planned += [(tasks, "opcm", alpha, order) for alpha in ALPHAS for tasks in LENGTHS]
        if order == 0:
            planned += [(tasks, method, None, 0) for method in OTHERS for tasks in LENGTHS]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "study.yaml")
        path.write_text(yaml.safe_dump({"recipe": str(recipe.resolve()), "methods": [{"method": "opcm"}]}), "utf-8")
        loaded = load_study(path, installed_catalog())
        with Bench.open(loaded, results.parent / "cache", SilentProgress()) as bench:
            for key in planned:
                if key not in done and key[0] <= bench.stream.length:
                    append(results, merged(bench, *key))


def merged(bench: Bench, tasks: int, name: str, alpha: float | None, order: int) -> Line:
    """Merge the first entries in one order, and return accuracy, drift and interference of the last step."""
    method = method_named(name)
    parameters = method.Parameters() if alpha is None else method.Parameters.model_validate({"alpha": alpha})
    entries = ordered(bench.recipe, tasks, order)
    *_, (_, state, _) = merged_steps(bench, method, entries, lambda _: lambda _: parameters)
    label = f"{name} {alpha} {tasks} {order}"
    names = [entry.name for entry in entries]
    recipe = bench.recipe.model_copy(update={"merge_method": name, "parameters": {}})
    read_out = bench.read_out(method, entries[-1], recipe)
    scores = bench.score_state(state, bench.tasks_of(names), label, label, read_out)
    delta = merged_delta(bench, state, read_out)
    lengths, interference = compare(bench, names, delta)
    drift = float(sum(values.square().sum() for values in delta.values())) ** 0.5
    return {
        "tasks": tasks,
        "method": name,
        "alpha": alpha,
        "order": order,
        "accuracy": statistics.fmean(scores.values()),
        "drift": drift / statistics.fmean(lengths),
        "interference": statistics.fmean(interference),
    }


def merged_delta(bench: Bench, state: State, read_out: ReadOut | None) -> dict[str, torch.Tensor]:
    """Return the merged delta of every weight matrix."""
    matrices = [tensor for tensor in bench.plan.merged if tensor.action == "merge-matrix"]
    return {t.name: torch.cat([p.clone() for p in delta_pieces(state, t, read_out)]).view(t.shape) for t in matrices}


def compare(bench: Bench, names: list[str], delta: dict[str, torch.Tensor]) -> tuple[list[float], list[float]]:
    """Return for each entry the length of its task vector over the weight matrices, and its interference."""
    lengths, interference = [], []
    for name in names:
        square, off, whole = 0.0, 0.0, 0.0
        for tensor, merged in delta.items():
            vector, _ = read_task_vector(bench.base, bench.checkpoints[name], tensor, context=bench.context)
            square += float(vector.square().sum())
            off += float(((merged - vector) @ vector.T).square().sum())
            whole += float((vector @ vector.T).square().sum())
        lengths.append(square**0.5)
        interference.append(off / whole)
    return lengths, interference


def tell(results: Path, picture: Path) -> None:
    """Print a table with a row for each alpha, and draw the three measures over alpha."""
    groups: dict[tuple[str, float | None, int], list[Line]] = defaultdict(list)
    for line in read(results):
        groups[line["method"], line["alpha"], line["tasks"]].append(line)
    lengths = sorted({tasks for _, _, tasks in groups})
    measures = ("accuracy", "drift", "interference")
    columns = [f"{measure}, {tasks} tasks" for measure in measures for tasks in lengths]
    print(f"| merged by | orders | {' | '.join(columns)} |\n|---|{'---:|' * (len(columns) + 1)}")
    figure = Figure(figsize=(9.5, 3.0), layout="constrained")
    axes = figure.subplots(1, 3)
    keys = sorted({key[:2] for key in groups}, key=lambda key: (key[0] != "opcm", key[0], key[1] or 0.0))
    for method, alpha in keys:
        cells = [groups.get((method, alpha, tasks), []) for tasks in lengths]
        row = [f"OPCM, alpha {alpha}" if alpha is not None else method, str(min(map(len, cells)))]
        for measure in measures:
            for cell in cells:
                value = statistics.fmean(line[measure] for line in cell) if cell else float("nan")
                row.append(f"{100 * value:.1f}" if measure == "accuracy" else f"{value:.2f}")
        print(f"| {' | '.join(row)} |")
    for axis, measure in zip(axes, measures, strict=True):
        for tasks in lengths:
            points = [(alpha, groups["opcm", alpha, tasks]) for alpha in sorted(ALPHAS)]
            known = [(alpha, statistics.fmean(line[measure] for line in cell)) for alpha, cell in points if cell]
            axis.plot(*zip(*known, strict=True), "o-", markersize=3, label=f"{tasks} tasks")
        axis.set_title(measure, fontsize=9)
        axis.set_xlabel("alpha", fontsize=8)
    axes[0].legend(fontsize=7)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    torch.set_num_threads(1)
    command, path, other = sys.argv[1:]
    if command == "tell":
        tell(Path(path), Path(other))
    else:
        measure(Path(path), Path(other))
