"""The continual merge of eight ViT-B/32 towers, every step saved: hubmerge against fusion_bench's OPCMForCLIP.

    python benchmarks/opcm.py --folder ~/.cache/hubmerge/benchmarks               # all, in turn
    python benchmarks/opcm.py --folder ... --only "hubmerge opcm" --repeat 2      # some, added to what is there
    python benchmarks/opcm.py --folder ... --table                                # what was measured so far

Every figure is that of a whole process, from its start to its end. On hubmerge's side that is `hubmerge run` on a
recipe with local folders: checksums of all inputs, the state of every step, every step's merged model with its card,
the check that transformers loads it. The programs take turns. CPU seconds are what can be compared on a machine that
does other things too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from measuring import REPOSITORY, Cost, hubmerge, hubmerge_environment, machine, markdown, measure, met_before
from peers import environment

PEER = "fusion_bench opcm"
ALPHA = 0.5
KEPT_IN_FLOAT32: dict[str, object] = {"alpha": ALPHA, "diagonal": "keep", "precision": "float32"}


@dataclass(frozen=True)
class Contestant:
    """A row of the table: parameters of hubmerge's `opcm`, None for fusion_bench.

    `first` is a user who has never merged these checkpoints, of whom hubmerge remembers nothing. `state_dtype` is that
    of the recipe.
    """

    name: str
    cpus: int
    parameters: dict[str, object] | None
    first: bool = False
    state_dtype: str = "float64"


CONTESTANTS = (
    Contestant(PEER, 1, None),
    Contestant("hubmerge opcm, the first time", 1, {"alpha": ALPHA}, first=True),
    Contestant("hubmerge opcm", 1, {"alpha": ALPHA}),
    Contestant("hubmerge opcm, 2 CPUs", 2, {"alpha": ALPHA}),
    Contestant("hubmerge opcm, state_dtype: float32", 1, {"alpha": ALPHA}, state_dtype="float32"),
    Contestant("hubmerge opcm, diagonal: keep", 1, {"alpha": ALPHA, "diagonal": "keep"}),
    Contestant(
        "hubmerge opcm, diagonal: keep, precision: float32",
        1,
        KEPT_IN_FLOAT32,
    ),
    Contestant(
        "hubmerge opcm, diagonal: keep, precision and state_dtype: float32",
        1,
        KEPT_IN_FLOAT32,
        state_dtype="float32",
    ),
)


def stream_folders(folder: Path, size: str, models: int) -> list[str]:
    """Folders of base model and checkpoints, made by a process of their own: torch would swell this one."""
    command = [sys.executable, REPOSITORY / "benchmarks" / "checkpoints.py", "--folder", folder]
    done = subprocess.run(
        [*command, "--size", size, "--models", str(models)], check=True, capture_output=True, text=True
    )
    return done.stdout.split()


def run_once(contestant: Contestant, folder: Path, size: str, models: int) -> Cost:
    """One measurement; what the process wrote is removed afterwards."""
    base, *stream = stream_folders(folder, size, models)
    work = Path(tempfile.mkdtemp(prefix="work-", dir=folder))
    log = folder / "logs" / f"opcm-{size}-{contestant.name.replace(' ', '-').replace(':', '')}.txt"
    try:
        if contestant.parameters is None:
            program = REPOSITORY / "benchmarks" / "programs" / "fusion_bench_opcm.py"
            python = environment(folder, "fusion_bench") / "python"
            cost = measure([python, program, str(ALPHA), work, base, *stream], cpus=contestant.cpus, log=log)
            saved = list(work.glob("*/checkpoints/*/model.safetensors"))
            if len(saved) != models:
                raise RuntimeError(f"fusion_bench saved {len(saved)} steps of {models}")
            return cost
        recipe = work / "recipe.yaml"
        recipe.write_text(
            json.dumps(
                {
                    "merge_method": "opcm",
                    "base_model": base,
                    "models": [{"model": path, "name": Path(path).name} for path in stream],
                    "parameters": contestant.parameters,
                    "state_dtype": contestant.state_dtype,
                }
            ),
            encoding="utf-8",
        )
        command = hubmerge(recipe, work / "runs", every_step=True)
        known = hubmerge_environment(work / "cache") if contestant.first else met_before(folder, base, stream)
        return measure(command, cpus=contestant.cpus, environment=known, log=log)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def table(results: Path) -> str:
    """Return the measurements so far, with the smallest value of each and its ratio to fusion_bench."""
    costs: dict[str, list[Cost]] = {}
    for line in results.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        costs.setdefault(row["name"], []).append(Cost(**row["cost"]))
    reference = Cost.least(costs[PEER]) if PEER in costs else None
    rows = []
    for contestant in CONTESTANTS:
        if contestant.name not in costs:
            continue
        least = Cost.least(costs[contestant.name])
        ratios = ["", ""]
        if reference is not None:
            ratios = [
                f"{least.cpu_seconds / reference.cpu_seconds:.2f}",
                f"{least.peak_megabytes / reference.peak_megabytes:.2f}",
            ]
        rows.append(
            [
                contestant.name,
                str(contestant.cpus),
                f"{least.cpu_seconds:.0f}",
                ratios[0],
                f"{least.wall_seconds:.0f}",
                f"{least.peak_megabytes:.0f}",
                ratios[1],
                str(len(costs[contestant.name])),
            ]
        )
    header = ["process", "CPUs", "CPU s", "of fusion_bench", "wall s", "peak MB", "of fusion_bench", "runs"]
    return markdown(header, rows) + f"\n\n{machine()}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="checkpoints, environments, results")
    parser.add_argument("--size", default="b32")
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=[contestant.name for contestant in CONTESTANTS])
    parser.add_argument("--table", action="store_true", help="measure nothing")
    options = parser.parse_args(argv)
    folder = options.folder.expanduser().resolve()
    results = folder / "results" / f"opcm-{options.size}-{options.models}.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(0 if options.table else options.repeat):
        for contestant in CONTESTANTS:
            if options.only is None or contestant.name in options.only:
                cost = run_once(contestant, folder, options.size, options.models)
                print(contestant.name, cost, flush=True)
                with results.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps({"name": contestant.name, "cost": asdict(cost)}) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
