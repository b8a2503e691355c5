"""CPU seconds of a study whose variants read one state, against merging each variant on its own.

    OMP_NUM_THREADS=1 python benchmarks/study/shared.py FOLDER [--tasks 8] [--images 24]

The stream is untrained: it has the size of the demo's (128 wide), and its accuracies mean nothing. Both sides merge and
score the same cells, in turn, and must have equal results.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from hubmerge.demo.make_stream import make_tiny_repos
from hubmerge.stream.catalog import installed_catalog
from hubmerge.study import load_study
from hubmerge.study.bench import Bench
from hubmerge.study.cells import cells
from hubmerge.study.merge_cell import merge_cells
from hubmerge.study.results import CellResult, References
from hubmerge.study.shared_state import CellMerge, grouped_by_state
from hubmerge.support.progress import SilentProgress

METHODS = [
    {"method": "wudi", "parameters": {"ridge": [0.01, 0.1, 0.3, 1.0]}},
    {"method": "iso_c", "parameters": {"scaling": [1.0, 1.5]}},
    {"method": "spectrum"},
    {"method": "subspace_boost"},
    {"method": "ace"},
    {"method": "sums", "parameters": {"matrices": ["mean", "sum", "adaptive"]}},
]


def main() -> None:
    """Print a row for each value of `score`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--images", type=int, default=24, help="images of each task")
    arguments = parser.parse_args()
    path = write_study(arguments.folder, arguments.tasks, arguments.images)
    study = load_study(path, installed_catalog())
    print("| score | cells | one by one, s | shared, s | ratio |\n|---|---:|---:|---:|---:|")
    with Bench.open(study, arguments.folder / "cache", SilentProgress()) as bench:
        missing = {str(number): cell for number, cell in enumerate(cells(study.study, bench.stream.length))}
        groups = grouped_by_state(bench, missing)
        alone = [[merge] for group in groups for merge in group]
        measured(alone, "last", arguments.folder)  # prepares the tasks
        for score in ("last", "every"):
            (separate, first), (shared, second) = (
                measured(merges, score, arguments.folder) for merges in (alone, groups)
            )
            if first != second:
                raise SystemExit("the results differ")
            print(f"| {score} | {len(missing)} | {separate:.1f} | {shared:.1f} | {shared / separate:.2f} |", flush=True)


def write_study(folder: Path, tasks: int, images: int) -> Path:
    """Write the stream, its recipe and the study; return the path of the study."""
    stream = make_tiny_repos(folder / "stream", tasks=tasks)
    names = stream.settings.tasks
    kind = "zero-shot-image-classification"
    recipe = {
        "merge_method": "wudi",
        "base_model": str(stream.base.folder),
        "models": [{"model": str(stream.tower(name).folder), "name": name} for name in names],
        "evaluate": {
            "tasks": [
                {
                    "name": name,
                    "kind": kind,
                    "dataset": {"path": str(stream.dataset(name).folder), "max_examples": images},
                }
                for name in names
            ]
        },
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"recipe": "recipe.yaml", "methods": METHODS}), encoding="utf-8")
    return path


def measured(
    groups: Iterable[Sequence[CellMerge]], score: str, work: Path
) -> tuple[float, dict[str, dict[str, object]]]:
    """Return the CPU seconds of merging and scoring groups of cells, and their results by digest."""
    references = References("", (), {}, {})
    begin = time.process_time()
    found: list[CellResult] = []
    for group in groups:
        found += merge_cells(group, references, score=score, work=work / "states")
    return time.process_time() - begin, {cell.digest: {**vars(cell), "seconds": 0} for cell in found}


if __name__ == "__main__":
    main()
