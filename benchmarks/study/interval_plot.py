"""Plot of the difference of every variant to one of them, with its 95 % interval from a paired bootstrap.

    python benchmarks/study/interval_plot.py OUT.png "OPCM" A.jsonl,B.jsonl

Arguments after the first two are those of over_seeds.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure
from over_seeds import StreamResults, paired


def main(out: Path, reference: str, arguments: list[str]) -> None:
    """Write the plot."""
    streams = [StreamResults.read(argument) for argument in arguments]
    keys = [key for key in streams[0].groups if all(key in stream.groups for stream in streams)]
    (base,) = [key for key in keys if key[0] == reference]
    found = [(key[0], paired(streams, key, base)) for key in keys if key != base]
    rows = sorted(((label, difference) for label, difference in found if difference), key=lambda row: row[1].mean)
    figure = Figure(figsize=(7.5, 0.26 * len(rows) + 1), layout="constrained")
    axes = figure.add_subplot()
    for place, (_, difference) in enumerate(rows):
        color = "#888888" if difference.is_noise else "#1a7f37" if difference.mean > 0 else "#b3261e"
        axes.plot([100 * difference.low, 100 * difference.high], [place, place], color=color, linewidth=2)
        axes.plot([100 * difference.mean], [place], "o", color=color, markersize=5)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=8)
    axes.set_xlabel(
        f"accuracy minus that of {reference} (points), 95 % paired interval; gray: inside the noise", fontsize=8
    )
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
