"""Comparison of rules for the rank of OPCM's projection, which use no data, with the best fixed alpha.

    python benchmarks/study/alpha_rules.py remove RESULTS.jsonl      merge with every rule; continues where it stopped
    python benchmarks/study/alpha_rules.py keep RESULTS.jsonl        the same with the diagonal kept
    python benchmarks/study/alpha_rules.py table RESULTS.jsonl ALPHA-0.jsonl ALPHA-1.jsonl ALPHA-2.jsonl

The streams, their number of tasks and their orders are those of alpha-0.yaml, alpha-1.yaml and alpha-2.yaml, whose
results the table needs. A rule sees what a merge sees: a weight matrix of the accumulated delta and of the task vector.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hubmerge.linalg import singular_directions
from hubmerge.methods import Absorbed, Opcm, TensorInput
from hubmerge.methods.opcm import OpcmParameters
from hubmerge.stream.catalog import installed_catalog
from hubmerge.study import load_study
from hubmerge.study.bench import Bench
from hubmerge.study.cells import ordered
from hubmerge.study.merge_cell import merged_steps
from hubmerge.study.results import CellResult, ResultsFile
from hubmerge.support.progress import SilentProgress

FOLDER = Path(__file__).parent
SEEDS = (0, 1, 2)
PRESENT = "break even: energy of A - energy of the task vector"
"""The rule behind `alpha: auto`."""


@dataclass(frozen=True)
class RuleInput:
    """Inputs of a rule, for every rank r from 1.

    `values` are the singular values of the accumulated delta, `energy` and `sums` the shares of their squares and of
    themselves in the first r directions, `removed` the share of the task vector's energy in the leading r x r block.
    """

    values: torch.Tensor
    energy: torch.Tensor
    sums: torch.Tensor
    removed: torch.Tensor
    expected: torch.Tensor
    """Removed share of a task vector with a random direction: r^2 / (m n)."""


def effective_rank(values: torch.Tensor) -> float:
    """Return the exponential of the entropy of the singular values' shares."""
    shares = values / values.sum()
    return float(torch.exp(-(shares * torch.log(shares)).sum()))


RULES: dict[str, Callable[[RuleInput], int]] = {
    PRESENT: lambda seen: int((seen.energy - seen.removed).argmax()) + 1,
    "break even: singular values of A - energy of the task vector": lambda seen: (
        int((seen.sums - seen.removed).argmax()) + 1
    ),
    "energy of A: 80 %": lambda seen: int((seen.energy < 0.8).sum()) + 1,
    "energy of A: 90 %": lambda seen: int((seen.energy < 0.9).sum()) + 1,
    "keep 90 % of the task vector": lambda seen: int((seen.removed <= 0.1).sum()),
    "keep 80 % of the task vector": lambda seen: int((seen.removed <= 0.2).sum()),
    "keep 70 % of the task vector": lambda seen: int((seen.removed <= 0.3).sum()),
    "a quarter of the effective rank": lambda seen: round(effective_rank(seen.values) / 4),
    "stable rank": lambda seen: round(float((seen.values**2).sum() / seen.values[0] ** 2)),
    "most above a random task vector": lambda seen: int((seen.removed - seen.expected).argmax()) + 1,
}


class Ruled(Opcm):
    """OPCM with the rank of a rule."""

    def __init__(self, rule: Callable[[RuleInput], int], diagonal: str) -> None:
        self.rule, self.diagonal = rule, diagonal

    def absorb_matrix(self, tensor: TensorInput[OpcmParameters]) -> Absorbed:
        """Return A + τ without the block, and without the diagonal unless it is kept."""
        accumulated, task_vector = tensor.accumulated, tensor.task_vector
        if accumulated.shape[0] > accumulated.shape[1]:
            across = replace(tensor, accumulated=accumulated.T.contiguous(), task_vector=task_vector.T.contiguous())
            turned = self.absorb_matrix(across)
            return replace(turned, accumulated=turned.accumulated.T)
        if not accumulated.any():
            return Absorbed(accumulated + task_vector, rank=0)
        directions = singular_directions(accumulated)
        turned_vector = directions.left.T @ task_vector @ directions.right.T
        length = float((task_vector**2).sum())
        shares = (turned_vector**2).cumsum(0).cumsum(1).diagonal() / length
        ranks = torch.arange(1, len(shares) + 1, dtype=torch.float64)
        squares = directions.values**2
        rank = self.rule(
            RuleInput(
                directions.values,
                squares.cumsum(0) / squares.sum(),
                directions.values.cumsum(0) / directions.values.sum(),
                shares,
                ranks**2 / task_vector.numel(),
            )
        )
        taken = torch.zeros_like(turned_vector)
        taken[:rank, :rank] = turned_vector[:rank, :rank]
        if self.diagonal == "remove":
            taken.diagonal().copy_(turned_vector.diagonal())
        kept = accumulated + task_vector - directions.left @ taken @ directions.right
        return Absorbed(kept, rank=rank, removed_share=float((taken**2).sum()) / length)


def merged(bench: Bench, method: Ruled, tasks: int, order: int, label: str) -> dict[str, Any]:
    """Merge the entries of one order, score the last step, and return its values."""
    entries = ordered(bench.recipe, tasks, order)
    parameters = OpcmParameters.model_validate({})
    ranks, removed, scores = [], [], {}
    for step, state, stats in merged_steps(bench, method, entries, lambda _: lambda _: parameters):
        if step > 1:
            ranks += [
                tensor.rank / tensor.directions
                for tensor in stats.tensors
                if tensor.rank is not None and tensor.directions
            ]
            removed.append(stats.removed_share)
        if step == len(entries):
            scores = bench.score_state(state, bench.tasks_of([entry.name for entry in entries]), label, method.name)
    return {
        "accuracy": statistics.fmean(scores.values()),
        "rank": statistics.fmean(ranks) if ranks else 0.0,
        "removed": statistics.fmean(removed),
    }


def measure(results: Path, diagonal: str) -> None:
    """Merge what is not in `results`, and append a line for each merge."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.is_file() else []
    done = {(line["seed"], line["order"], line["rule"], line["diagonal"]) for line in map(json.loads, lines)}
    for seed in SEEDS:
        loaded = load_study(FOLDER / f"alpha-{seed}.yaml", installed_catalog())
        planned = [(seed, order, rule, diagonal) for rule in RULES for order in range(loaded.study.orders)]
        if not set(planned) - done:
            continue
        with Bench.open(loaded, results.parent / "cache", SilentProgress()) as bench:
            for key in planned:
                if key not in done:
                    _, order, rule, _ = key
                    method = Ruled(RULES[rule], diagonal)
                    found = merged(bench, method, loaded.study.tasks[0], order, f"{rule}, {diagonal}, {order}")
                    line = {"seed": seed, "order": order, "rule": rule, "diagonal": diagonal, **found}
                    with results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")


def table(results: Path, sweeps: list[Path]) -> None:
    """Print mean accuracies: the fixed alphas, the best of them for each seed, and the rules beside it."""
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    fixed = [fixed_alphas(path) for path in sweeps]
    for diagonal, title in (("remove", "the paper's form"), ("keep", "`diagonal: keep`")):
        print(f"\n{title}\n")
        print(f"| rank | {' | '.join(f'seed {seed}' for seed in SEEDS)} | mean | to the best | removed |")
        print("|---|" + "---:|" * (len(SEEDS) + 3))
        best = [max(sweep[diagonal].values()) for sweep in fixed]
        for alpha in fixed[0][diagonal]:
            print_row(f"alpha {alpha}", [sweep[diagonal][alpha] for sweep in fixed], best)
        print_row("best alpha of each seed", best, best)
        for rule in RULES:
            same = [line for line in lines if (line["rule"], line["diagonal"]) == (rule, diagonal)]
            if not same:
                continue
            means = [statistics.fmean(line["accuracy"] for line in same if line["seed"] == seed) for seed in SEEDS]
            removed = statistics.fmean(line["removed"] for line in same)
            print_row(f"`auto`: {rule}" if rule == PRESENT else rule, means, best, f"{100 * removed:.0f} %")


def print_row(label: str, accuracies: list[float], best: list[float], removed: str = "") -> None:
    """Print one row; the last column but one is the mean loss to the best alpha of each seed."""
    lost = statistics.fmean(a - b for a, b in zip(accuracies, best, strict=True))
    cells = [f"{100 * value:.1f}" for value in (*accuracies, statistics.fmean(accuracies))]
    print(f"| {' | '.join([label, *cells, f'{100 * lost:+.1f}', removed])} |")


def fixed_alphas(path: Path) -> dict[str, dict[float, float]]:
    """Return the mean accuracy of each fixed alpha over the orders, by treatment of the diagonal."""
    groups: dict[str, dict[float, list[CellResult]]] = {"remove": defaultdict(list), "keep": defaultdict(list)}
    for cell in ResultsFile(path).cells.values():
        if isinstance(alpha := cell.parameters.get("alpha"), float):
            groups[cell.parameters.get("diagonal", "remove")][alpha].append(cell)
    return {diagonal: {alpha: mean(alphas[alpha]) for alpha in sorted(alphas)} for diagonal, alphas in groups.items()}


def mean(cells: list[CellResult]) -> float:
    """Return the mean accuracy of some cells."""
    return statistics.fmean(cell.average or 0.0 for cell in cells)


if __name__ == "__main__":
    torch.set_num_threads(1)
    command, path, *others = sys.argv[1:]
    if command == "table":
        table(Path(path), [Path(other) for other in others])
    else:
        measure(Path(path), command)
