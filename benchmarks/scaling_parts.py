"""A stream of many checkpoints on one process, and in parts on two that are combined.

Writes a base model and 64 checkpoints, random, 9.4 million parameters each (2.5 GB in all). Then merges them with
`wudi`: whole, and as two parts at the same time, each on a CPU of its own, with `combine` at the end. Prints CPU and
wall seconds, how far the two results are apart, and what the measured seconds mean for thousands of checkpoints:

    python benchmarks/scaling_parts.py [--entries 64] [--width 256] [--rounds 1] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from measuring import Cost, machine, markdown, measure
from safetensors.torch import load_file, save_file

LAYERS = 12
PARTS = 2
SHARES = {"q": (1, 1), "k": (1, 1), "v": (1, 1), "o": (1, 1), "fc1": (4, 1), "fc2": (1, 4)}


def write_models(folder: Path, count: int, width: int) -> None:
    """Write a base model and `count` checkpoints near it."""
    shapes = {
        f"layers.{layer}.{name}.weight": (rows * width, columns * width)
        for layer in range(LAYERS)
        for name, (rows, columns) in SHARES.items()
    }
    generator = torch.Generator().manual_seed(0)
    base = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for number in range(count + 1):
        place = folder / ("base" if number == 0 else f"m{number}")
        if (place / "config.json").exists():
            continue
        place.mkdir(parents=True, exist_ok=True)
        scale = 0.0 if number == 0 else 0.01
        values = {name: value + scale * torch.randn(value.shape, generator=generator) for name, value in base.items()}
        save_file(values, place / "model.safetensors", metadata={"format": "pt"})
        (place / "config.json").write_text('{"model_type": "unknown", "architectures": ["UnknownModel"]}')


def write_recipe(folder: Path, entries: int) -> Path:
    """Write the recipe of a stream of so many entries."""
    models = [{"model": str(folder / f"m{number}"), "name": f"m{number}"} for number in range(1, entries + 1)]
    path = folder / f"recipe-{entries}.yaml"
    path.write_text(json.dumps({"merge_method": "wudi", "base_model": str(folder / "base"), "models": models}))
    return path


def hubmerge(root: Path, name: str, *arguments: str | Path, skip: int = 0) -> Cost:
    """Run a command with an empty work folder, on one CPU."""
    work = root / f"work-{name}"
    environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(root / "cache")}
    command = [sys.executable, "-m", "hubmerge", *arguments, "--json", "--work-dir", work]
    cost = measure(command, environment=environment, log=root / f"{name}.log", skip=skip)
    shutil.rmtree(work)
    return cost


def stage_seconds(root: Path, name: str, title: str) -> float:
    """Return the seconds of the stages of a command whose titles contain a text."""
    lines = [json.loads(line) for line in (root / f"{name}.log").read_text().splitlines() if line.startswith("{")]
    return sum(line["seconds"] for line in lines if line["event"] == "stage" and title in line["title"])


def distance(one: Path, other: Path, base: Path) -> float:
    """Return the distance of two merged models, relative to that from the base model."""
    first, second, start = (load_file(folder / "model.safetensors") for folder in (one, other, base))
    apart = sum(float((first[name] - second[name]).double().norm()) ** 2 for name in start)
    moved = sum(float((second[name] - start[name]).double().norm()) ** 2 for name in start)
    return float((apart / moved) ** 0.5)


def one_round(root: Path, folder: Path, entries: int) -> dict[str, float]:
    """Merge the stream in both ways, and return the seconds."""
    recipe = write_recipe(folder, entries)
    whole = hubmerge(root, "whole", "run", recipe, "--out", root / "whole")
    fixed = hubmerge(root, "fixed", "run", write_recipe(folder, 1), "--out", root / "fixed")
    places = [root / f"part-{number}" for number in range(1, PARTS + 1)]

    def merge_part(number: int) -> Cost:
        arguments = ("run", recipe, "--part", f"{number}/{PARTS}", "--out", places[number - 1])
        return hubmerge(root, f"part{number}", *arguments, skip=number - 1)

    with ThreadPoolExecutor(PARTS) as pool:
        parts = list(pool.map(merge_part, range(1, PARTS + 1)))
    combined = hubmerge(root, "combine", "combine", *places, "--recipe", recipe, "--out", root / "combined")
    return {
        "whole CPU": whole.cpu_seconds,
        "whole wall": whole.wall_seconds,
        "parts CPU": sum(part.cpu_seconds for part in parts),
        "slowest part CPU": max(part.cpu_seconds for part in parts),
        "parts wall": max(part.wall_seconds for part in parts),
        "combine CPU": combined.cpu_seconds,
        "combine wall": combined.wall_seconds,
        "fixed CPU": fixed.cpu_seconds,
        "add": stage_seconds(root, "combine", "add "),
        "read a state": stage_seconds(root, "combine", "fetch the state") / PARTS,
        "solve and write": stage_seconds(root, "combine", "write the merged model"),
        "distance": distance(root / "combined", root / "whole", folder / "base"),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=64)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        root = Path(name)
        folder = root / "models" if options.folder is None else options.folder / "models"
        os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        write_models(folder, options.entries, options.width)
        rounds = [one_round(root, folder, options.entries) for _ in range(options.rounds)]
    found = {key: min(one[key] for one in rounds) for key in rounds[0]}
    print(markdown(["", "seconds"], [[key, f"{value:.3g}"] for key, value in found.items()]))
    entry = (found["whole CPU"] - found["fixed CPU"]) / (options.entries - 1)
    print(f"\nread and fold, CPU s per entry: {entry:.3g}\n")
    rows = []
    for entries, workers in ((1000, 1), (1000, 8), (1000, 64), (10_000, 64)):
        merged = entries * entry / workers
        added = (workers - 1) * (found["add"] / (PARTS - 1) + found["read a state"])
        rows.append([f"{entries}", f"{workers}", f"{merged:.0f}", f"{added:.0f}", f"{merged + added:.0f}"])
    print(markdown(["entries", "workers", "merge, s", "add, s", "together, s"], rows))
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
