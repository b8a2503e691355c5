"""Similarity and degradation over all pairs of the entries of a stream.

    python benchmarks/study/pairs.py measure RESULTS.jsonl STREAM RECIPE.yaml    continues where it stopped
    python benchmarks/study/pairs.py tell RESULTS.jsonl OUT.png

Each pair is merged alone, by each method, and scored on its two tasks. The degradation is the mean over the two of the
accuracy of the task's own checkpoint minus that of the merged model. Two coefficients are printed for each stream and
method:

- plain: of the cosine between the two task vectors with the degradation;
- within tasks: of what is left of both after the mean of each task's pairs is removed. Some tasks lose more whatever
  they are merged with, and that is not similarity.

Pairs share tasks, so intervals come from drawing tasks with replacement (4000 draws; pairs of distinct tasks).
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from json_lines import Line, append, read
from matplotlib.figure import Figure

from hubmerge.methods import method_named
from hubmerge.stream.catalog import installed_catalog
from hubmerge.study import load_study
from hubmerge.study.bench import Bench
from hubmerge.study.merge_cell import merged_steps
from hubmerge.support.progress import SilentProgress

METHODS = ("opcm", "wudi", "weight_average")
DRAWS = 4000


def measure(results: Path, stream: str, recipe: Path) -> None:
    """Merge the pairs that are not in `results`, and append a line for each pair and method."""
    found = read(results)
    done = {(line["stream"], line["method"], *line["pair"]) for line in found}
    study = {"recipe": str(recipe.resolve()), "methods": [{"method": name} for name in METHODS]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pairs.yaml")
        path.write_text(yaml.safe_dump(study), encoding="utf-8")
        loaded = load_study(path, installed_catalog())
        with Bench.open(loaded, results.parent / "cache", SilentProgress()) as bench:
            references = bench.references()
            places = {name: place for place, name in enumerate(references.names)}
            for name, pair in itertools.product(METHODS, itertools.combinations(references.names, 2)):
                if (stream, name, *pair) in done:
                    continue
                accuracies = merged(bench, name, pair)
                line = {
                    "stream": stream,
                    "method": name,
                    "pair": pair,
                    "cosine": references.cosines[places[pair[0]]][places[pair[1]]],
                    "own": [references.own[task] for task in accuracies],
                    "merged": [*accuracies.values()],
                }
                append(results, line)


def merged(bench: Bench, name: str, pair: Sequence[str]) -> dict[str, float]:
    """Merge two entries by a method, and return the accuracy on the task of each."""
    method = method_named(name)
    parameters = method.Parameters()
    by_name = {entry.name: entry for entry in bench.recipe.stream()}
    entries = [by_name[entry] for entry in pair]
    *_, (_, state, _) = merged_steps(bench, method, entries, lambda _: lambda _: parameters)
    recipe = bench.recipe.model_copy(update={"merge_method": name, "parameters": {}})
    label = f"{name} of {' and '.join(pair)}"
    read_out = bench.read_out(method, entries[-1], recipe)
    return bench.score_state(state, bench.tasks_of(pair), label, label, read_out)


def tell(results: Path, picture: Path) -> None:
    """Print the coefficients of each stream and method, and draw the pairs."""
    groups: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in read(results):
        groups[line["stream"], line["method"]].append(line)
    streams = [*dict.fromkeys(stream for stream, _ in groups)]
    print("| stream | pairs | merged by | mean degradation | plain | 95 % | within tasks | 95 % |")
    print("|---|---:|---|---:|---:|---:|---:|---:|")
    figure = Figure(figsize=(3.2 * len(streams), 3.2), layout="constrained")
    axes = dict(zip(streams, figure.subplots(1, len(streams), squeeze=False)[0], strict=True))
    for (stream, method), lines in groups.items():
        cosines, losses = table(lines)
        row = [stream, str(len(lines)), method, f"{100 * np.nanmean(losses):.1f}"]
        for within in (False, True):
            drawn = intervals(cosines, losses, within=within)
            row += [f"{correlation(cosines, losses, within=within):+.2f}", f"{drawn[0]:+.2f} to {drawn[1]:+.2f}"]
        print(f"| {' | '.join(row)} |")
        upper = np.triu_indices(len(cosines), 1)
        color = f"C{METHODS.index(method)}"
        axes[stream].plot(cosines[upper], 100 * losses[upper], "o", color=color, markersize=4, label=method)
        axes[stream].set_title(stream, fontsize=9)
        axes[stream].locator_params(axis="x", nbins=5)
        axes[stream].set_xlabel("cosine of the two task vectors", fontsize=8)
    axes[streams[0]].set_ylabel("accuracy lost against own checkpoints (points)", fontsize=8)
    axes[streams[0]].legend(fontsize=7)
    figure.savefig(picture, dpi=110)


def table(lines: Sequence[Line]) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and degradations as symmetric tables over the entries, not a number on the diagonal."""
    names = sorted({name for line in lines for name in line["pair"]})
    cosines, losses = np.full((2, len(names), len(names)), np.nan)
    for line in lines:
        places = tuple(names.index(name) for name in line["pair"])
        for place in (places, places[::-1]):
            cosines[place] = line["cosine"]
            losses[place] = np.mean(line["own"]) - np.mean(line["merged"])
    return cosines, losses


def correlation(cosines: np.ndarray, losses: np.ndarray, *, within: bool) -> float:
    """Return Pearson's coefficient over the pairs; `within` removes the effect of each task from both tables."""
    upper = np.triu_indices(len(cosines), 1)
    known = ~np.isnan(cosines[upper])
    first, second = ((without_tasks(values) if within else values)[upper][known] for values in (cosines, losses))
    return float(np.corrcoef(first, second)[0, 1])


def without_tasks(values: np.ndarray) -> np.ndarray:
    """Return a table minus the least-squares fit of a mean and one number for each task."""
    rows, columns = np.triu_indices(len(values), 1)
    known = ~np.isnan(values[rows, columns])
    rows, columns = rows[known], columns[known]
    design = np.zeros((len(rows), len(values)))
    design[np.arange(len(rows)), rows] = 1.0
    design[np.arange(len(rows)), columns] += 1.0
    fitted = design @ np.linalg.lstsq(design, values[rows, columns], rcond=None)[0]
    left = np.full_like(values, np.nan)
    left[rows, columns] = values[rows, columns] - fitted
    return left


def intervals(cosines: np.ndarray, losses: np.ndarray, *, within: bool) -> tuple[float, float]:
    """Return the ends of the 95 % interval; a task that is drawn twice has no pair with itself."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(DRAWS):
        chosen = np.sort(generator.integers(len(cosines), size=len(cosines)))
        if len(set(chosen)) >= 4:
            found.append(correlation(*(values[np.ix_(chosen, chosen)] for values in (cosines, losses)), within=within))
    low, high = np.nanquantile(found, [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    torch.set_num_threads(1)
    command, path, *others = sys.argv[1:]
    if command == "tell":
        tell(Path(path), Path(others[0]))
    else:
        measure(Path(path), others[0], Path(others[1]))
