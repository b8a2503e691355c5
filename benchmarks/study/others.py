"""One table of studies that sweep `others`, the treatment of tensors that are not weight matrices, on several streams.

    python benchmarks/study/others.py docs/study/others-[01234].jsonl
    python benchmarks/study/others.py A-1.jsonl,B-1.jsonl A-2.jsonl,B-2.jsonl

Arguments are those of over_seeds.py. A row is a method, a column a treatment. Each has the mean accuracy over the
streams. All but the default of the method also have the mean difference to it with the standard deviation over the
streams, and its 95 % interval from a paired bootstrap over the examples of all streams; bold is outside the noise.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import get_args

import over_seeds
from over_seeds import Key, StreamResults, mean

from hubmerge.methods import method_named
from hubmerge.methods.others import Others

TREATMENTS = get_args(Others)


def main() -> None:
    """Print the table as Markdown, from the best default to the worst."""
    streams = [StreamResults.read(argument) for argument in sys.argv[1:]]
    rows: dict[str, dict[str, Key]] = {}
    for key, (cell, *_) in streams[0].groups.items():
        if "others" in cell.point and all(key in stream.groups for stream in streams):
            rows.setdefault(cell.series, {})[cell.point["others"]] = key
    defaults = {series: default(streams, next(iter(keys.values()))) for series, keys in rows.items()}
    print(f"| merged by | default | {' | '.join(TREATMENTS)} |")
    print("|---|---|" + "---:|" * len(TREATMENTS))
    for series in sorted(rows, key=lambda series: -accuracy(streams, rows[series][defaults[series]])):
        keys, own = rows[series], defaults[series]
        row = [series, f"`{own}`"]
        row += [described(streams, keys[name], keys[own]) if name in keys else "" for name in TREATMENTS]
        print(f"| {' | '.join(row)} |")


def default(streams: Sequence[StreamResults], key: Key) -> str:
    """Return the default treatment of the method of a variant."""
    others: str = method_named(streams[0].groups[key][0].method).Parameters().others
    return others


def described(streams: Sequence[StreamResults], key: Key, own: Key) -> str:
    """Return the accuracy of a variant, and its difference to the default with its interval."""
    shown = f"{100 * accuracy(streams, key):.1f}"
    if key == own:
        return shown
    differences = [100 * (mean(stream.groups[key]) - mean(stream.groups[own])) for stream in streams]
    shown += f": {statistics.fmean(differences):+.1f} ± {statistics.stdev(differences):.1f}"
    interval = over_seeds.paired(streams, key, own)
    if interval is None:
        return shown
    shown += f" ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"
    return shown if interval.is_noise else f"**{shown}**"


def accuracy(streams: Sequence[StreamResults], key: Key) -> float:
    """Return the mean accuracy over the streams."""
    return statistics.fmean(mean(stream.groups[key]) for stream in streams)


if __name__ == "__main__":
    main()
