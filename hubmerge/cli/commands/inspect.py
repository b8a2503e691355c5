"""`hubmerge inspect`."""

from __future__ import annotations

from typing import Annotated

import typer

from hubmerge.api import inspection
from hubmerge.cli.options import WORK_DIR, Json, Quiet, WorkDir, command_context, refuse_unused


def inspect(
    context: typer.Context,
    place: Annotated[
        str, typer.Argument(metavar="REPO_OR_FOLDER", help="Checkpoint, published stream, or folder of a state.")
    ],
    *,
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-out", help="Score the merge without each of its entries.")
    ] = False,
    norms: Annotated[
        bool, typer.Option("--norms", help="Download the weights of a repo to compute their norm.")
    ] = False,
    work_dir: WorkDir = WORK_DIR,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Show what a checkpoint, a stream or a state is, or what each entry of a stream gives to the merge."""
    progress = command_context(context, quiet=quiet, json=json).progress()
    if leave_one_out:
        refuse_unused(context, ("norms",), beside="--leave-one-out")
        scores = inspection.leave_one_out(place, work_dir=work_dir, progress=progress)
        progress.event("leave-one-out", scores.to_dict())
        progress.note(str(scores))
        return 0
    refuse_unused(context, ("work_dir",), without="--leave-one-out")
    found = inspection.inspect(place, norms=norms, progress=progress)
    progress.event("inspection", found.to_dict())
    progress.note(str(found))
    return 0
