"""Growth of time and memory of `hubmerge run` with the stream and with the model.

    python benchmarks/growth.py --folder ~/.cache/hubmerge/benchmarks --models 2 4 8 16 32
    python benchmarks/growth.py --folder ... --models 2 --sizes b32 b16 l14 h14

Whole processes on one CPU, every step saved. A stream longer than `--distinct` visits the same checkpoints again:
what a step costs depends on shapes alone, and thirty-two of the largest towers are 80 GB. "of a step" is the time
that every step after the first takes: (this row - the row above) / (steps between them).
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from measuring import Cost, hubmerge, machine, markdown, measure, met_before
from opcm import stream_folders


def run_once(folder: Path, size: str, models: int, distinct: int, parameters: dict[str, object]) -> Cost:
    """Merge a stream of that length."""
    base, *stream = stream_folders(folder, size, min(models, distinct))
    work = Path(tempfile.mkdtemp(prefix="work-", dir=folder))
    try:
        entries = []
        for number in range(models):
            # A link is another folder to the recipe, and the same files to the disk.
            link = work / f"model-{number + 1:02}"
            link.symlink_to(stream[number % len(stream)])
            entries.append({"model": str(link), "name": link.name})
        recipe = work / "recipe.yaml"
        written = {"merge_method": "opcm", "base_model": base, "models": entries, "parameters": parameters}
        recipe.write_text(json.dumps(written), encoding="utf-8")
        log = folder / "logs" / f"growth-{size}-{models}.txt"
        environment = met_before(folder, base, stream)
        return measure(hubmerge(recipe, work / "runs", every_step=True), environment=environment, log=log)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="checkpoints and logs")
    parser.add_argument("--sizes", nargs="+", default=["b32"])
    parser.add_argument("--models", nargs="+", type=int, default=[2, 4, 8, 16, 32])
    parser.add_argument("--distinct", type=int, default=4)
    parser.add_argument("--parameters", type=json.loads, default={}, metavar="JSON", help='{"diagonal": "keep"}')
    options = parser.parse_args(argv)
    folder = options.folder.expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for size in options.sizes:
        before: tuple[int, Cost] | None = None
        for models in options.models:
            cost = run_once(folder, size, models, options.distinct, options.parameters)
            step = ""
            if before is not None:
                step = f"{(cost.cpu_seconds - before[1].cpu_seconds) / (models - before[0]):.1f}"
            before = models, cost
            rows.append([size, str(models), f"{cost.cpu_seconds:.0f}", step, f"{cost.peak_megabytes:.0f}"])
            print(rows[-1], flush=True)
    print(markdown(["size", "models", "CPU s", "of a step", "peak MB"], rows))
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
