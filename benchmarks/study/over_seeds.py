"""One table of the results of studies that differ in the training seed of their streams alone.

    python benchmarks/study/over_seeds.py docs/study/methods-[012].jsonl

Each row: the mean over the orders for each seed; then, over all seeds, the mean and two spreads: the standard deviation
over the orders of one seed (root mean square of those of the seeds), and the standard deviation of the seeds' means.
Seeds differ in how hard their tasks are; so the last column but one compares with the first method seed by seed: the
mean difference and its standard deviation over the seeds. Only cells that every file has are printed.
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
    print(f"| merged by | tasks | orders | {' | '.join(seeds)} | mean | orders ± | seeds ± | to the first | BWT |")
    print("|---|---:|---:|" + "---:|" * (len(seeds) + 5))
    for tasks in dict.fromkeys(tasks for _, tasks in groups[0]):
        references(files, groups, tasks)
        first: list[float] | None = None
        for key in groups[0]:
            if key[1] == tasks and all(key in group for group in groups):
                cells = [group[key] for group in groups]
                means = [mean(same) for same in cells]
                first = means if first is None else first
                differences = [one - other for one, other in zip(means, first, strict=True)]
                counts = ", ".join(str(count) for count in dict.fromkeys(map(len, cells)))
                transfers = [cell.backward_transfer for same in cells for cell in same]
                known = [transfer for transfer in transfers if transfer is not None]
                row = [key[0], str(tasks), counts, *percent([*means, statistics.fmean(means)])]
                row.append(f"{100 * spread(cells):.1f}" if min(map(len, cells)) > 1 else "")
                row.append(f"{100 * statistics.stdev(means):.1f}" if len(means) > 1 else "")
                row.append("" if first is means else told(differences))
                row.append(f"{100 * statistics.fmean(known):.1f}" if known else "")
                print(f"| {' | '.join(row)} |")


def references(files: Sequence[ResultsFile], groups: Sequence[Groups], tasks: int) -> None:
    """Return the rows of the base model and of the checkpoints by themselves."""
    for label, column in (("base model", "base"), ("own checkpoints", "own")):
        means = []
        for file, group in zip(files, groups, strict=True):
            names = next(same for key, same in group.items() if key[1] == tasks)[0].accuracies.tasks
            scores = getattr(next(iter(file.references.values())), column)
            means.append(statistics.fmean(scores[name] for name in names))
        print(f"| {' | '.join([label, str(tasks), '', *percent([*means, statistics.fmean(means)])])} | | | | |")


def percent(shares: Sequence[float]) -> list[str]:
    """Shares in percent."""
    return [f"{100 * share:.1f}" for share in shares]


def told(differences: Sequence[float]) -> str:
    """Mean and deviation of differences, in points."""
    spread = f" ± {100 * statistics.stdev(differences):.1f}" if len(differences) > 1 else ""
    return f"{100 * statistics.fmean(differences):+.1f}{spread}"


def mean(cells: Sequence[CellResult]) -> float:
    """Return the mean accuracy after the last step."""
    return statistics.fmean(cell.average or 0.0 for cell in cells)


def spread(cells: Sequence[Sequence[CellResult]]) -> float:
    """Return the standard deviation over orders, pooled over the seeds."""
    variances = [statistics.variance([cell.average or 0.0 for cell in same]) for same in cells]
    return math.sqrt(statistics.fmean(variances))


if __name__ == "__main__":
    main([Path(path) for path in sys.argv[1:]])
