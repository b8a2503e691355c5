"""What each command does, from a loaded recipe to lines on the screen; arguments are `hubmerge.cli.main`'s part."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from hubmerge.stream.load import load
from hubmerge.support.progress import Progress, SilentProgress
from hubmerge.support.text import short_commit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubmerge.executor.parallel.processes import Processes
    from hubmerge.run.out_folder import OutFolder
    from merge_recipes import LoadedRecipe, ModelReference, Problem

DIFFERS = 6


def progress_for(output_format: str) -> Progress:
    """Return the listener for `text`, `json` or `quiet`."""
    from hubmerge.cli.console import JsonLines, RichConsole

    if output_format == "text":
        return RichConsole()
    return JsonLines() if output_format == "json" else SilentProgress()


def run(
    recipe: Path,
    work_dir: Path,
    out: OutFolder | None,
    output_format: str,
    *,
    locked: bool = False,
    replay: bool = False,
    summary: Path | None = None,
    processes: Processes | None = None,
) -> int:
    """Merge, evaluate and publish what is missing, and print the accuracy matrix at the end."""
    from hubmerge.executor.parallel.processes import SINGLE_PROCESS
    from hubmerge.run.run import Run

    progress = progress_for(output_format)
    loaded = load(recipe, progress)
    with Run.open(
        loaded, work_dir, progress, locked=locked, replay=replay, processes=processes or SINGLE_PROCESS, out=out
    ) as this:
        steps = []
        for step in this.steps():
            progress.event("step", step.to_dict())
            steps.append(step)
        done = len(steps)
        this.write_out()
        if done == 0:
            progress.note(f"nothing to do: all {this.stream.length} steps are done")
        matrix = this.report.accuracy_matrix()
        if matrix.tasks:
            progress.note("\n" + matrix.to_text())
        if others := this.report.other_metrics_text():
            progress.note("\n" + others)
        if summary is not None:
            from hubmerge.automation.summary import append_summary, summary_text

            append_summary(summary, summary_text(this.report, steps, this.addresses()))
        for address in this.addresses():
            progress.note(address)
        progress.event("done", {"steps": done, "of": this.stream.length, "addresses": this.addresses()})
    return 0


def check(recipe: Path, output_format: str) -> int:
    """Check a recipe against what is installed and the folders that are there, without any network.

    Raises:
        RecipeError: with every problem of the file.
    """
    from merge_recipes import RecipeError

    progress = progress_for(output_format)
    loaded = load(recipe, progress)
    missing = list(_missing_folders(loaded))
    if missing:
        raise RecipeError(missing)
    entries = f"{len(loaded.recipe.entries)} checkpoint(s)"
    if loaded.recipe.has_queries:
        entries += f" and what {len(loaded.recipe.models) - len(loaded.recipe.entries)} query(s) find"
    progress.note(f"{recipe}: well-formed: {loaded.recipe.merge_method} over {entries}")
    return 0


def plan(recipe: Path, output_format: str) -> int:
    """Show what a run would do, from headers alone."""
    from hubmerge.plan.plan_run import plan_run
    from hubmerge.plan.text import plan_text

    progress = progress_for(output_format)
    loaded = load(recipe, progress)
    planned = plan_run(loaded, progress)
    progress.event("plan", planned.to_dict())
    progress.note(plan_text(planned))
    return 0


def verify(release: str, work_dir: Path, output_format: str, *, quick: bool) -> int:
    """Check a published step, and make it again unless `quick`; exit status 6 if something differs."""
    from hubmerge.verify import verify_step
    from merge_recipes import ModelReference

    progress = progress_for(output_format)
    reference = ModelReference.parse(release)
    verdict = verify_step(reference.path, reference.revision, work_dir / "verify", progress, recompute=not quick)
    progress.note(verdict.summary)
    counts = {"differences": len(verdict.differences), "unknown": len(verdict.unknown)}
    progress.event("done", {"verified": verdict.verified, **counts})
    return 0 if verdict.verified else DIFFERS


def rollback(repo: str, step: int, output_format: str) -> int:
    """Make a target repo hold an earlier step again."""
    from hubmerge.hub.published import roll_back

    progress = progress_for(output_format)
    commit = roll_back(repo, step)
    progress.note(f"{repo} is at step {step} again, by commit {short_commit(commit)}; the tags of later steps are gone")
    progress.event("done", {"repo": repo, "step": step, "commit": commit})
    return 0


def study(path: Path, out: Path | None, cache: Path, output_format: str) -> int:
    """Merge and score what a study lacks, and write its tables and plots."""
    from hubmerge.stream.catalog import installed_catalog
    from hubmerge.study import load_study, run_study

    progress = progress_for(output_format)
    folder = path.with_suffix("") if out is None else out
    run_study(load_study(path, installed_catalog()), folder, cache, progress)
    progress.note((folder / "tables.md").read_text(encoding="utf-8"))
    progress.note(f"results, tables and plots lie in {folder}")
    progress.event("done", {"out": str(folder)})
    return 0


def schema() -> int:
    """Print the JSON Schema of recipes, with the methods and kinds of task that are installed."""
    from hubmerge.stream.catalog import installed_catalog
    from merge_recipes import json_schema

    print(json.dumps(json_schema(installed_catalog()), indent=2))
    return 0


def hub_serve(
    root: Path, host: str, port: int, *, throttle: float | None = None, faults: float = 0.0, fault_seed: int = 0
) -> int:
    """Serve a Hub from a folder until interrupted; slow, or failing now and then, where that is asked for."""
    from hubmerge.localhub import serve

    serve(root, host, port, throttle=throttle, faults=faults, fault_seed=fault_seed)
    return 0


def demo(root: Path, namespace: str, output_format: str) -> int:
    """Make the tiny CLIP stream and merge it."""
    from hubmerge.demo import run_demo

    progress = progress_for(output_format)
    voices = {"text": [], "quiet": ["--quiet"], "json": ["--json"]}
    run_demo(
        root, os.environ.get("HF_ENDPOINT"), progress.note, namespace=namespace, run_arguments=voices[output_format]
    )
    return 0


def _missing_folders(loaded: LoadedRecipe) -> Iterator[Problem]:
    """Yield the recipe's local models and datasets that are no folders of this machine."""
    from merge_recipes import StreamEntry

    recipe, document = loaded.recipe, loaded.document
    models: list[tuple[tuple[str | int, ...], ModelReference]] = [(("base_model",), recipe.base_model)]
    for index, entry in enumerate(recipe.models):
        if isinstance(entry, StreamEntry):
            both = (entry.model, entry.model.adapter)
            models += [(("models", index, "model"), one) for one in both if one is not None]
    tasks = recipe.evaluate.tasks if recipe.evaluate is not None else ()
    datasets = [(("evaluate", "tasks", index, "dataset", "path"), task.dataset) for index, task in enumerate(tasks)]
    wanted = [
        *((place, Path(one.path), "model") for place, one in models if one.is_local),
        *((place, Path(dataset.path), "dataset") for place, dataset in datasets if dataset.is_local),
    ]
    holds = {"model": "config.json and weights", "dataset": "data files"}
    for place, folder, kind in wanted:
        if not os.path.isdir(folder):  # noqa: PTH112 - a name too long for the system is no folder either
            hint = f"a local {kind} is a folder with {holds[kind]}; paths start from the recipe's folder"
            yield document.problem(place, f"there is no folder {folder}", hint)
