"""One table of the results of studies that differ in the training seed of their streams alone.

    python benchmarks/study/over_seeds.py docs/study/methods-[012].jsonl

Each row: the mean over the orders for each seed; then, over all seeds, the mean and two spreads: the standard deviation
over the orders of one seed (root mean square of those of the seeds), and the standard deviation of the seeds' means.
Only what every file has is told.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from hubmerge.study.results import CellResult, ResultsFile, grouped

Groups = dict[tuple[str, int], list[CellResult]]


def main(paths: Sequence[Path]) -> None:
    """Print the table as Markdown."""
    files = [ResultsFile(path) for path in paths]
    groups: list[Groups] = [grouped([*file.cells.values()], "label", "tasks") for file in files]
    seeds = [f"seed {number}" for number in range(len(paths))]
    print("| merged by | tasks | orders | " + " | ".join(seeds) + " | mean | orders ± | seeds ± | BWT |")
    print("|---|---:|---:|" + "---:|" * (len(seeds) + 4))
    for tasks in dict.fromkeys(tasks for _, tasks in groups[0]):
        for label, column in (("base model", "base"), ("own checkpoints", "own")):
            names = [
                next(iter(g for key, g in group.items() if key[1] == tasks))[0].accuracies.tasks for group in groups
            ]
            means = [
                statistics.fmean(getattr(next(iter(file.references.values())), column)[name] for name in seen)
                for file, seen in zip(files, names, strict=True)
            ]
            print_row([label, str(tasks), ""], means, [])
        for key in groups[0]:
            if key[1] == tasks and all(key in group for group in groups):
                cells = [group[key] for group in groups]
                count = min(len(same) for same in cells)
                print_row([key[0], str(tasks), str(count)], [mean(same) for same in cells], cells)


def print_row(head: list[str], means: list[float], cells: list[list[CellResult]]) -> None:
    """One row: what it is, the means of the seeds, and what they have in common."""
    values = [*means, statistics.fmean(means)]
    row = [*head, *(f"{100 * value:.1f}" for value in values)]
    row.append(f"{100 * spread(cells):.2f}" if cells and len(cells[0]) > 1 else "")
    row.append(f"{100 * statistics.stdev(means):.1f}" if len(means) > 1 else "")
    transfers = [cell.backward_transfer for same in cells for cell in same]
    known = [transfer for transfer in transfers if transfer is not None]
    row.append(f"{100 * statistics.fmean(known):.1f}" if known else "")
    print(f"| {' | '.join(row)} |")


def mean(cells: Sequence[CellResult]) -> float:
    """The mean accuracy after the last step."""
    return statistics.fmean(cell.average or 0.0 for cell in cells)


def spread(cells: Sequence[Sequence[CellResult]]) -> float:
    """The standard deviation over orders, pooled over the seeds."""
    variances = [statistics.variance([cell.average or 0.0 for cell in same]) for same in cells]
    return math.sqrt(statistics.fmean(variances))


if __name__ == "__main__":
    main([Path(path) for path in sys.argv[1:]])
