"""`hubmerge combine`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from hubmerge.api import combining
from hubmerge.cli.options import WORK_DIR, Json, Quiet, WorkDir, command_context


class Duplicates(str, Enum):
    """What happens to a checkpoint that two streams have."""

    refuse = "refuse"
    subtract = "subtract"


Streams: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(metavar="REPO[@step-03]|DIR...", help="Published streams, or folders with a state."),
]
State: TypeAlias = Annotated[
    bool, typer.Option("--state", help="With --out: also write the state, to combine the folder again.")
]
WholeRecipe: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="RECIPE", help="Recipe that the streams are parts of (`run --part`).")
]
Parts: TypeAlias = Annotated[
    int | None, typer.Option(metavar="COUNT", min=2, help="With --recipe: take the repos of so many parts.")
]


def combine(
    context: typer.Context,
    streams: Streams = None,
    *,
    into: Annotated[str | None, typer.Option(metavar="REPO", help="Publish the combined stream to this repo.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the merged model to this folder.")] = None,
    state: State = False,
    recipe: WholeRecipe = None,
    parts: Parts = None,
    duplicates: Annotated[
        Duplicates, typer.Option(help="Refuse checkpoints that two streams have, or count each once.")
    ] = Duplicates.refuse,
    work_dir: WorkDir = WORK_DIR,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Combine streams of one base model into one by adding their states; no checkpoint is downloaded."""
    progress = command_context(context, quiet=quiet, json=json).progress()
    if parts is not None and (recipe is None or streams):
        raise typer.BadParameter("--parts goes with --recipe and without repos: it names the repos of the parts")
    made = combining.combine(
        combining.part_repos(recipe, parts) if recipe is not None and parts is not None else streams or (),
        into=into,
        out=out,
        state=state,
        recipe=recipe,
        duplicates=duplicates.value,
        work_dir=work_dir,
        progress=progress,
    )
    progress.note(
        f"combined: {len(made.report.steps)} steps" if made.added else "nothing to do: the streams are combined already"
    )
    for address in made.addresses:
        progress.note(address)
    done = {"steps": len(made.report.steps), "added": made.added, "subtracted": list(made.subtracted)}
    progress.event("done", {**done, "addresses": list(made.addresses)})
    return 0
