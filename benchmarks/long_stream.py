"""Sizes and times of a long stream: what step 500 adds to the target repo, against step 5.

Publishes a stream of small models with 150 tensors to an embedded Hub, step by step. Prints the sizes of what a step
publishes beside its weights, the CPU seconds of a step in the middle of a run (median of ten steps), and those of a run
that adds one step from an empty work folder and an empty cache:

    python benchmarks/long_stream.py [--steps 5 50 500] [--width 8]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measuring import machine, markdown
from safetensors.torch import save_file

from hubmerge.localhub import LocalHub

REPO = "local/long"
MATRICES = ("q", "k", "v", "o", "fc1", "fc2")
WINDOW = 10


def write_models(folder: Path, count: int, width: int) -> None:
    """Write a base model and `count` checkpoints of 12 layers and 150 tensors, all random."""
    shapes = {
        f"layers.{layer}.{name}.{kind}": (width, width) if kind == "weight" else (width,)
        for layer in range(12)
        for name in MATRICES
        for kind in ("weight", "bias")
    }
    shapes |= {f"{name}.weight": (width, width) for name in ("a", "b", "c", "d", "e", "f")}
    generator = torch.Generator().manual_seed(0)
    for name in ("base", *(f"m{number}" for number in range(1, count + 1))):
        place = folder / name
        place.mkdir()
        values = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
        save_file(values, place / "model.safetensors", metadata={"format": "pt"})
        (place / "config.json").write_text('{"model_type": "unknown", "architectures": ["UnknownModel"]}')


def write_recipe(folder: Path, steps: int) -> Path:
    """Write the recipe of a stream of so many steps."""
    models = [{"model": str(folder / f"m{number}"), "name": f"m{number}"} for number in range(1, steps + 1)]
    recipe = {"merge_method": "opcm", "base_model": str(folder / "base"), "models": models, "publish": {"repo": REPO}}
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe), encoding="utf-8")
    return path


def measured_run(recipe: str, work: str) -> None:
    """Run a recipe and print the CPU seconds between its steps."""
    import hubmerge

    times = [time.process_time() for _ in hubmerge.run(recipe, work_dir=work, progress=None)]
    print(json.dumps([after - before for before, after in itertools.pairwise(times)]))


def step_times(recipe: Path, work: Path) -> list[float]:
    """Run a recipe in a new process and return the CPU seconds between its steps."""
    command = [sys.executable, __file__, "--run", str(recipe), str(work)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def add_one(recipe: Path, root: Path) -> float:
    """Run a recipe in a new process, from an empty work folder and cache, and return its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "hubmerge", "run", str(recipe), "--quiet", "--work-dir", str(root / "other")]
    places = {"HF_HOME": str(root / "home"), "XDG_CACHE_HOME": str(root / "cache")}
    subprocess.run(command, check=True, env={**os.environ, **places})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    for name in ("other", "home"):
        shutil.rmtree(root / name, ignore_errors=True)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def published_sizes(step: int) -> dict[str, int]:
    """Return the sizes of the metadata of a published step, and of its state, in bytes."""
    from huggingface_hub import HfApi

    def sizes(revision: str) -> dict[str, Any]:
        entries = HfApi().list_repo_tree(REPO, revision=revision, recursive=True)
        return {entry.path: entry.size for entry in entries if hasattr(entry, "size")}

    files, states = sizes(f"step-{step:02d}"), sizes("hubmerge-state")
    names = ("hubmerge.json", "README.md", "hubmerge.lock.yaml", "hubmerge.intoto.json", "hubmerge.cdx.json")
    names += (f"history/step-{step:02d}.json",)
    newest = max(states, key=lambda path: states[path]).partition("/")[0]
    return {
        **{name.replace(f"{step:02d}", "NN"): files[name] for name in names},
        "all but weights": sum(size for name, size in files.items() if name in names or name == "hubmerge.yaml"),
        "state": sum(size for path, size in states.items() if path.startswith(f"{newest}/")),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 50, 500])
    parser.add_argument("--width", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, LocalHub(Path(name) / "hub") as hub:
        root = Path(name)
        os.environ |= {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HUB_DISABLE_XET": "1"}
        os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HOME": str(root / "seeding")}
        write_models(root, max(options.steps) + WINDOW + 4, options.width)
        rows = []
        for step in options.steps:
            step_times(write_recipe(root, step - 1), root / "work")
            spent = add_one(write_recipe(root, step), root)
            sizes = published_sizes(step)
            # The first and the last steps of a run are not typical: stages work on several steps at once.
            times = step_times(write_recipe(root, step + WINDOW + 4), root / "work")[2:-2]
            rows.append([str(step), f"{statistics.median(times):.2f}", f"{spent:.1f}"])
            rows[-1] += [f"{size / 1e3:.0f}" for size in sizes.values()]
            print(rows[-1], file=sys.stderr, flush=True)
        header = ["step", "CPU s per step", "CPU s to add one", *(f"{name}, kB" for name in sizes)]
        print(markdown(header, rows))
        print(f"\n{machine()}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        measured_run(*sys.argv[2:])
    else:
        main()
