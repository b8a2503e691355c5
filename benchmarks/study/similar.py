"""Two checkpoints of one task at the end of a stream of three others, with growing overlap of their images.

    python benchmarks/study/similar.py OUT

Prints three tables, a row for each task and overlap and a column for each method: what is removed of the second
checkpoint's task vector, what merging it changes on its task, and the average accuracy over all tasks at the end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from benchmarks.study.streams import FOLDER, HALVES, OVERLAPS
from hubmerge.stream.catalog import installed_catalog
from hubmerge.study import load_study, run_study
from hubmerge.study.results import CellResult, ResultsFile
from hubmerge.support.progress import SilentProgress

METHODS = [
    {"method": "opcm", "name": "OPCM", "parameters": {"alpha": [0.5, 0.8, 1.0]}},
    {"method": "opcm", "name": "diagonal kept, alpha 0.5", "parameters": {"diagonal": "keep"}},
    {"method": "opcm", "name": "alpha auto", "parameters": {"alpha": "auto"}},
    {"method": "adaptive_scale", "name": "no projection"},
    {"method": "weight_average", "name": "weight average"},
]
FIRST, SECOND = 4, 5
"""The steps of the two checkpoints of one task."""


def main(out: Path) -> None:
    """Run a study for each task and overlap, and print the tables."""
    found: dict[tuple[str, int], tuple[float, list[CellResult]]] = {}
    for name in HALVES:
        for percent in OVERLAPS:
            path = FOLDER / f"similar-{name}-{percent}.yaml"
            recipe = f"./recipe-{name}-overlap-{percent}.yaml"
            path.write_text(yaml.safe_dump({"recipe": recipe, "methods": METHODS}), encoding="utf-8")
            folder = out / f"{name}-{percent}"
            results = run_study(load_study(path, installed_catalog()), folder, out / "cache", SilentProgress())
            [references] = ResultsFile(folder / "results.jsonl").references.values()
            found[name, percent] = references.cosines[FIRST - 1][SECOND - 1] or 0.0, results
    tell("removed of the second task vector (%)", found, lambda _, cell: f"{100 * cell.steps[-1].removed_share:.0f}")
    tell("change on its task (points)", found, lambda name, cell: f"{change(name, cell):+.1f}")
    tell("average accuracy at the end (%)", found, lambda _, cell: f"{100 * (cell.average or 0.0):.1f}")


def change(name: str, cell: CellResult) -> float:
    """By how many points the accuracy on the task changes when its second checkpoint is merged."""
    before, after = (cell.accuracies.value(step, name) for step in (FIRST, SECOND))
    return 100 * ((after or 0.0) - (before or 0.0))


def tell(
    title: str,
    found: dict[tuple[str, int], tuple[float, list[CellResult]]],
    text: Callable[[str, CellResult], str],
) -> None:
    """Print one table."""
    labels = [cell.label for cell in next(iter(found.values()))[1]]
    print(f"\n{title}\n\n| task, images shared | cosine | {' | '.join(labels)} |\n|---|{'---:|' * (len(labels) + 1)}")
    for (name, percent), (cosine, results) in found.items():
        cells = [f"{name}, {percent} %", f"{cosine:.2f}", *(text(name, cell) for cell in results)]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
