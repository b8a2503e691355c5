"""Growth of a change in the last digits of the first accumulated delta over the steps.

    python benchmarks/study/stability.py

Relative difference of the accumulated delta over all merged tensors; one order of twenty tasks.
"""

from __future__ import annotations

from pathlib import Path

import torch

from hubmerge.executor.state import State
from hubmerge.linalg import frobenius_norm, total_norm
from hubmerge.methods import method_named
from hubmerge.stream.catalog import installed_catalog
from hubmerge.study import load_study
from hubmerge.study.bench import Bench
from hubmerge.study.cells import Cell, ordered
from hubmerge.study.merge_cell import changed_state, merged_steps
from hubmerge.support.progress import SilentProgress

FOLDER = Path(__file__).parent
STEPS = (2, 4, 8, 12, 16, 20)


def main() -> None:
    """Merge the stream unchanged, rounded and perturbed, and print a table."""
    loaded = load_study(FOLDER / "rounding-0.yaml", installed_catalog())
    with Bench.open(loaded, Path("/nonexistent"), SilentProgress()) as bench:
        print(f"| | {' | '.join(f't = {step}' for step in STEPS)} |\n|---|{'---:|' * len(STEPS)}")
        for label, parameters in {
            "paper's form": {},
            "diagonal kept": {"diagonal": "keep"},
            "alpha auto": {"alpha": "auto"},
            "alpha auto, diagonal kept": {"alpha": "auto", "diagonal": "keep"},
        }.items():
            method = method_named("opcm")
            values = method.Parameters(**parameters)
            variants = {"exact": (None, None), "rounded to float32": ("float32", None), "start off by 1e-12": (None, 1)}
            entries = ordered(bench.recipe, 20, 0)
            cells = {
                name: Cell("", "opcm", parameters, {}, 20, 0, rounding, perturb)
                for name, (rounding, perturb) in variants.items()
            }
            merges = [
                merged_steps(
                    bench,
                    method,
                    entries,
                    lambda _, values=values: lambda _: values,
                    change=lambda state, step, cell=cell: changed_state(state, cell, step),
                )
                for cell in cells.values()
            ]
            rows: dict[str, list[str]] = {name: [] for name in variants}
            for results in zip(*merges, strict=True):
                step, exact, _ = results[0]
                for name, (_, state, _) in zip(variants, results, strict=True):
                    if step in STEPS and name != "exact":
                        rows[name].append(f"{difference(exact, state):.0e}")
            for name in list(variants)[1:]:
                print(f"| {label}, {name} | {' | '.join(rows[name])} |", flush=True)


def difference(first: State, second: State) -> float:
    """Return the norm of the difference of two states, relative to the norm of the first."""
    names = list(first.manifest.tensors)
    off = total_norm(frobenius_norm(first.read(name) - second.read(name)) for name in names)
    return off / total_norm(frobenius_norm(first.read(name)) for name in names)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
