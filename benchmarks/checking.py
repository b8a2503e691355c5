"""Cost of checking what is read back: the share of a run's CPU time that digests and checksums take.

Publishes a stream of small towers to an embedded Hub in a process of its own. Each run is a new process that counts the
CPU seconds of its checks: of sources and of the files of the Hub cache, of states, of written models. Prints a table
of three runs: all steps from empty caches, one more model on the same machine, and one more from an empty work folder:

    python benchmarks/checking.py [--models 4] [--width 512] [--layers 4]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from measuring import machine, markdown

spent: dict[str, float] = {}


def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that adds the CPU seconds of its thread to `spent`."""

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        begin = time.thread_time()
        try:
            return function(*arguments, **options)
        finally:
            spent[name] = spent.get(name, 0.0) + time.thread_time() - begin

    return call


def _counted_seal(check: Any) -> Any:
    if isinstance(check, property):
        return property(counted("seals of reports", check.fget))  # type: ignore[arg-type]
    return counted("seals of reports", check)


def measured_run(recipe: str, work: str) -> None:
    """Run a recipe and print the CPU seconds of the process and of its checks."""
    import hubmerge
    from hubmerge.executor.state import MergeState
    from hubmerge.report import report
    from hubmerge.support import hashing

    read_digest, checks = hashing.read_digest, counted("digests of files", hashing.read_digest)

    def digest(path: Path, *arguments: Any) -> str:
        written = Path(work) in path.parents  # for the report, not a check
        found: str = (read_digest if written else checks)(path, *arguments)
        return found

    hashing.read_digest = digest
    MergeState.verify = counted("checksums of states", MergeState.verify)  # type: ignore[method-assign]
    for name in ("broken_digest", "has_broken_seal"):
        setattr(report.RunReport, name, _counted_seal(getattr(report.RunReport, name)))
    hubmerge.run(recipe, work_dir=work, progress=None).finish()
    print(json.dumps({"run": time.process_time(), **spent}))


def run(recipe: Path, root: Path) -> dict[str, float]:
    """Run a recipe in a new process and return its CPU seconds."""
    places = {"HF_HOME": str(root / "home"), "XDG_CACHE_HOME": str(root / "cache")}
    command = [sys.executable, __file__, "--run", str(recipe), str(root / "work")]
    done = subprocess.run(command, check=True, env={**os.environ, **places}, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def write_recipe(root: Path, models: int) -> Path:
    """Write the recipe of a stream of so many towers."""
    entries = [{"model": f"local/tower-{number}", "name": f"tower-{number}"} for number in range(1, models + 1)]
    recipe = {
        "merge_method": "opcm",
        "base_model": "local/base",
        "models": entries,
        "publish": {"repo": "local/merged"},
    }
    path = root / "recipe.yaml"
    path.write_text(json.dumps(recipe), encoding="utf-8")
    return path


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    options = parser.parse_args()
    from extend import push_models

    from hubmerge.localhub import LocalHub

    with tempfile.TemporaryDirectory() as name, LocalHub(Path(name) / "hub") as hub:
        root = Path(name)
        os.environ |= {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HUB_DISABLE_XET": "1"}
        os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HOME": str(root / "seeding")}
        size = push_models(options.models + 2, options.width, options.layers, root / "model")
        first = run(write_recipe(root, options.models), root)
        second = run(write_recipe(root, options.models + 1), root)
        shutil.rmtree(root / "work")
        third = run(write_recipe(root, options.models + 2), root)
    kinds = sorted({key for found in (first, second, third) for key in found} - {"run"})
    titles = (f"{options.models} steps, empty caches", "one more step", "one more step, empty work folder")
    rows = []
    for title, found in zip(titles, (first, second, third), strict=True):
        values = [found.get(kind, 0.0) for kind in kinds]
        share = 100 * sum(values) / found["run"]
        rows.append([title, f"{found['run']:.1f}", *(f"{value:.2f}" for value in values), f"{share:.1f} %"])
    print(f"models of {size:.1f} MB\n")
    print(markdown(["run", "CPU s", *(f"{kind}, CPU s" for kind in kinds), "share"], rows))
    print(f"\n{machine()}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        measured_run(*sys.argv[2:])
    else:
        main()
