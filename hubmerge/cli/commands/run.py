"""`hubmerge run`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from hubmerge.api.combining import load_part
from hubmerge.api.merging import StepRun
from hubmerge.cli.options import WORK_DIR, Json, Quiet, Recipe, WorkDir, command_context, refuse_quiet_details
from hubmerge.support.progress import Progress

EveryStep: TypeAlias = Annotated[
    bool, typer.Option("--every-step", help="With --out: also write each intermediate model, to DIR/step-01, ...")
]
State: TypeAlias = Annotated[
    bool, typer.Option("--state", help="With --out: also write the state, for `hubmerge combine`.")
]
Part: TypeAlias = Annotated[
    str | None, typer.Option(metavar="2/8", help="Merge only this part of the stream; `hubmerge combine` ends it.")
]


def run(
    context: typer.Context,
    recipe: Recipe,
    *,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the last merged model to this folder.")] = None,
    every_step: EveryStep = False,
    state: State = False,
    part: Part = None,
    locked: Annotated[
        bool, typer.Option("--locked", help="Take every commit from RECIPE.lock.yaml and refuse any other.")
    ] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Re-merge from the first step that no longer matches the recipe.")
    ] = False,
    summary: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append the accuracy table to a Markdown file.")
    ] = None,
    work_dir: WorkDir = WORK_DIR,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print the definitions of the measures too.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Merge, evaluate and publish the steps that are missing."""
    command = command_context(context, quiet=quiet, json=json)
    refuse_quiet_details(context, quiet=quiet, json=json)
    progress = command.progress()
    steps = StepRun(
        recipe if part is None else load_part(recipe, part, locked=locked, progress=progress),
        out=out,
        every_step=every_step,
        work_dir=work_dir,
        locked=locked,
        replay=replay,
        summary=summary,
        progress=progress,
        processes=command.processes,
        state=state,
    )
    print_run(steps, progress, verbose=verbose)
    return 0


def print_run(steps: StepRun, progress: Progress, *, verbose: bool = False) -> None:
    """Do the steps of a run, and print each one, the scores and the addresses."""
    for step in steps:
        progress.event("step", step.to_dict())
        progress.note(f"step {step.step} of {steps.length}: {step.name}")
    if not steps.steps:
        progress.note(f"nothing to do: all steps are done ({steps.length})")
    scores = steps.scores()
    if text := steps.scores_text(defined=verbose):
        from hubmerge.cli.score_table import print_scores  # imports rich

        print_scores(progress, text, scores)
    links = steps.links()
    for name, address in links.items():
        progress.note(f"{name:<7} {address}")
    for number, one in enumerate(steps.next_steps if steps.steps else ()):
        progress.note(f"{'next' if number == 0 else '':<7} {one.purpose}: {one.command}")
    done = {"steps": len(steps.steps), "of": steps.length, "addresses": steps.addresses, "scores": scores}
    progress.event("done", {**done, "links": links, "next": [asdict(one) for one in steps.next_steps]})
