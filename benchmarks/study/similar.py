"""Two checkpoints of one task at the end of a stream of three others, with growing overlap of their images.

python benchmarks/study/similar.py OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from benchmarks.study.streams import FOLDER, HALVES, OVERLAPS
from hubmerge.catalog import installed_catalog
from hubmerge.progress import SilentProgress
from hubmerge.study import load_study, run_study
from hubmerge.study.results import ResultsFile

METHODS = [
    {"method": "opcm", "parameters": {"alpha": [0.2, 0.5, 0.8, 1.0]}},
    {"method": "opcm", "name": "opcm, alpha auto", "parameters": {"alpha": "auto"}},
    {"method": "adaptive_scale"},
    {"method": "weight_average"},
]


def main(out: Path) -> None:
    """Run a study for each task and overlap, all into one results file, and print the table."""
    print("| task | images shared | cosine | merged by | removed of the second | task after 4 | task after 5 | all |")
    print("|---|---:|---:|---|---:|---:|---:|---:|")
    for name in HALVES:
        for percent in OVERLAPS:
            path = FOLDER / f"similar-{name}-{percent}.yaml"
            recipe = f"./recipe-{name}-overlap-{percent}.yaml"
            path.write_text(yaml.safe_dump({"recipe": recipe, "methods": METHODS}), encoding="utf-8")
            loaded = load_study(path, installed_catalog())
            folder = out / f"{name}-{percent}"
            results = run_study(loaded, folder, out / "cache", SilentProgress())
            [references] = ResultsFile(folder / "results.jsonl").references.values()
            cosine = references.cosines[3][4]
            for result in results:
                matrix, last = result.accuracies, result.steps[-1]
                values = [matrix.value(4, name), matrix.value(5, name), result.average]
                cells = [name, f"{percent} %", f"{cosine:.2f}", result.label, f"{100 * last.removed_share:.0f} %"]
                cells += [f"{100 * value:.1f}" for value in values if value is not None]
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
