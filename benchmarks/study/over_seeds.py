"""One table of the results of studies that differ in the training seed of their streams alone.

    python benchmarks/study/over_seeds.py docs/study/methods-[012].jsonl
    python benchmarks/study/over_seeds.py --to "OPCM" --by-task A-1.jsonl,B-1.jsonl A-2.jsonl,B-2.jsonl
    python benchmarks/study/over_seeds.py --to "OPCM" --same-tests docs/study/real-text{,-seed-[1234]}.jsonl

An argument is the results of one stream, in one file or in several with commas between; the columns number the streams
from 0. Each row: the mean over the orders for each stream; then, over all streams, the mean and two spreads: the
standard deviation over the orders of one stream (root mean square of those of the streams), and the standard deviation
of the streams' means.

The next columns compare with one variant, the first or that of --to. Streams differ in how hard their tasks are, so the
comparison is made stream by stream: the mean difference with the standard deviation over the streams, and, where the
results have the answers to each example, its 95 % interval from a paired bootstrap over the examples, and in how many
streams the variant is ahead. --same-tests says that all streams are scored on the same examples: their answers are
averaged first, so that an example counts once, however many streams answer it.

Only cells that every stream has are printed. --by-task adds the accuracy on each task, averaged over the streams.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hubmerge.study.answers import PairedDifference, mean_answers, paired_difference
from hubmerge.study.results import CellResult, References, ResultsFile, grouped

Key = tuple[str, int]
"""Label of a variant and number of tasks."""


@dataclass(frozen=True)
class StreamResults:
    """Cells of one stream by label and number of tasks, and its references."""

    groups: dict[Key, list[CellResult]]
    references: References

    @classmethod
    def read(cls, argument: str) -> StreamResults:
        """Read the files of an argument."""
        files = [ResultsFile(Path(path)) for path in argument.split(",")]
        cells = [cell for file in files for cell in file.cells.values()]
        return cls(grouped(cells, "label", "tasks"), next(iter(files[0].references.values())))


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("results", nargs="+")
    parser.add_argument("--to")
    parser.add_argument("--by-task", action="store_true")
    parser.add_argument("--same-tests", action="store_true")
    arguments = parser.parse_args()
    streams = [StreamResults.read(argument) for argument in arguments.results]
    keys = [key for key in streams[0].groups if all(key in stream.groups for stream in streams)]
    for tasks in dict.fromkeys(tasks for _, tasks in keys):
        same = [key for key in keys if key[1] == tasks]
        reference = (arguments.to, tasks) if arguments.to else same[0]
        if reference not in same:
            parser.error(f"no variant {arguments.to!r}; there are: {', '.join(label for label, _ in same)}")
        print_table(streams, same, reference, by_task=arguments.by_task, same_tests=arguments.same_tests)


def print_table(
    streams: Sequence[StreamResults], keys: Sequence[Key], reference: Key, *, by_task: bool, same_tests: bool
) -> None:
    """Print the rows of one number of tasks: references, then variants from the best to the worst."""
    all_names = sorted(streams[0].groups[keys[0]][0].accuracies.tasks)
    names, several = all_names if by_task else [], len(streams) > 1
    seeds = [f"seed {number}" for number in range(len(streams))] if several else []
    spreads = ["orders ±", "seeds ±"] if several else ["orders ±"]
    compare = [f"to {reference[0]}", "95 %", *(["ahead"] if several else [])]
    print(f"| {reference[1]} tasks, merged by | {' | '.join(['orders', *seeds, 'mean', *spreads, *compare, *names])} |")
    print("|---|" + "---:|" * (2 + len([*seeds, *spreads, *compare, *names])))
    for label, column in (("base model", "base"), ("own checkpoints", "own")):
        scores = [getattr(stream.references, column) for stream in streams]
        means = [statistics.fmean(one[name] for name in all_names) for one in scores]
        each = percent(means) if several else []
        row = [label, "", *each, *percent([statistics.fmean(means)]), *("" for _ in [*spreads, *compare])]
        row += percent([statistics.fmean(one[name] for one in scores) for name in names])
        print(f"| {' | '.join(row)} |")
    overall = {key: statistics.fmean(mean(stream.groups[key]) for stream in streams) for key in keys}
    for key in sorted(keys, key=lambda key: -overall[key]):
        cells = [stream.groups[key] for stream in streams]
        means = [mean(group) for group in cells]
        row = [shown(key[0]), ", ".join(str(n) for n in dict.fromkeys(map(len, cells)))]
        row += [*(percent(means) if several else []), *percent([overall[key]])]
        row.append(f"{100 * spread(cells):.1f}" if min(map(len, cells)) > 1 else "")
        row += [f"{100 * statistics.stdev(means):.1f}"] if several else []
        row += (
            compared(streams, key, reference, same_tests=same_tests)[: len(compare)]
            if key != reference
            else ["" for _ in compare]
        )
        row += percent([statistics.fmean(task_mean(group, name) for group in cells) for name in names])
        print(f"| {' | '.join(row)} |")


def compared(streams: Sequence[StreamResults], key: Key, reference: Key, *, same_tests: bool) -> list[str]:
    """Return the difference to the reference, its interval and the number of streams in which it is positive."""
    differences = [mean(stream.groups[key]) - mean(stream.groups[reference]) for stream in streams]
    deviation = f" ± {100 * statistics.stdev(differences):.1f}" if len(streams) > 1 else ""
    interval = paired(streams, key, reference, same_tests=same_tests)
    return [
        f"{100 * statistics.fmean(differences):+.1f}{deviation}",
        f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}" if interval else "",
        f"{sum(difference > 0 for difference in differences)} of {len(streams)}",
    ]


def paired(
    streams: Sequence[StreamResults], key: Key, reference: Key, *, same_tests: bool = False
) -> PairedDifference | None:
    """Return the paired difference over the examples of all tasks of all streams, or over those that they share."""
    return paired_difference(*(answers(streams, side, same_tests=same_tests) for side in (key, reference)))


def answers(streams: Sequence[StreamResults], key: Key, *, same_tests: bool) -> dict[str, np.ndarray]:
    """Return the share of right answers to each example, by task, and by stream unless they share the examples."""
    found = [mean_answers([cell.answers for cell in stream.groups[key]]) for stream in streams]
    if not same_tests:
        return {f"{number} {task}": values for number, one in enumerate(found) for task, values in one.items()}
    return {task: np.mean([one[task] for one in found], axis=0) for task in found[0]}


def shown(label: str) -> str:
    """Return the label of a variant; where its series ends with the swept parameter, the name is printed once."""
    return re.sub(r"\b(\w+), \1 ", r"\1 ", label)


def percent(shares: Sequence[float]) -> list[str]:
    """Return shares in percent."""
    return [f"{100 * share:.1f}" for share in shares]


def mean(cells: Sequence[CellResult]) -> float:
    """Return the mean accuracy after the last step."""
    return statistics.fmean(cell.average or 0.0 for cell in cells)


def task_mean(cells: Sequence[CellResult], task: str) -> float:
    """Return the mean accuracy on one task after the last step."""
    return statistics.fmean(cell.accuracies.value(cell.accuracies.steps[-1], task) or 0.0 for cell in cells)


def spread(cells: Sequence[Sequence[CellResult]]) -> float:
    """Return the standard deviation over orders, pooled over the streams."""
    variances = [statistics.variance([cell.average or 0.0 for cell in group]) for group in cells]
    return math.sqrt(statistics.fmean(variances))


if __name__ == "__main__":
    main()
