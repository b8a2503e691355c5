"""How far a change in the last digits of the first accumulated delta has grown after t steps.

    python benchmarks/study/stability.py

Relative difference of the accumulated delta over all merged tensors; one order of twenty tasks.
"""

from __future__ import annotations

from pathlib import Path

import torch

from hubmerge.executor import ExecutorContext, Merge, StepInput, merge_steps
from hubmerge.executor.state import State
from hubmerge.linalg import frobenius_norm, total_norm
from hubmerge.methods import method_named
from hubmerge.stream.catalog import installed_catalog
from hubmerge.study import load_study
from hubmerge.study.bench import Bench
from hubmerge.study.cells import Cell, ordered
from hubmerge.study.folding import disturbed
from hubmerge.support.progress import SilentProgress

FOLDER = Path(__file__).parent
STEPS = (2, 4, 8, 12, 16, 20)


def main() -> None:
    """Merge the stream as it is, rounded and perturbed, side by side, and print a table."""
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
            states: dict[str, State | None] = dict.fromkeys(variants)
            told: dict[str, list[str]] = {name: [] for name in variants}
            for step, entry in enumerate(ordered(bench.recipe, 20, 0), start=1):
                for name, (rounding, perturb) in variants.items():
                    cell = Cell("", "opcm", parameters, {}, 20, 0, rounding, perturb)
                    incoming = StepInput(bench.checkpoints[entry.name], lambda _, values=values: values)
                    merge = Merge(bench.base, method, bench.plan)
                    context = ExecutorContext(bench.input_dtype)
                    state, _ = merge_steps(merge, [incoming], states[name], None, sketches=False, context=context)
                    states[name] = disturbed(state, cell, step)
                    if step in STEPS and name != "exact":
                        told[name].append(f"{difference(states['exact'], states[name]):.0e}")
            for name in list(variants)[1:]:
                print(f"| {label}, {name} | {' | '.join(told[name])} |", flush=True)


def difference(first: State | None, second: State | None) -> float:
    """Length of the difference of two states over the length of the first."""
    assert first is not None and second is not None  # noqa: PT018
    names = list(first.manifest.tensors)
    off = total_norm(frobenius_norm(first.read(name) - second.read(name)) for name in names)
    return off / total_norm(frobenius_norm(first.read(name)) for name in names)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
