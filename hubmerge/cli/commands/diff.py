"""`hubmerge diff`."""

from __future__ import annotations

from typing import Annotated

import typer

from hubmerge.api import inspection
from hubmerge.cli.options import Json, Quiet, command_context

PLACE = "Checkpoint, step, or folder: owner/name@revision, perhaps with +adapter."


def diff(
    context: typer.Context,
    one: Annotated[str, typer.Argument(metavar="ONE", help=PLACE)],
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The model to compare with it.")],
    *,
    limit: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Show the N tensors that differ most.", show_default="20; all with --json"
        ),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Compare two models tensor by tensor, in any layout, dtype and number of files."""
    progress = command_context(context, quiet=quiet, json=json).progress()
    found = inspection.diff(one, other, progress=progress)
    progress.event("diff", found.to_dict(limit))
    progress.note(str(found) if limit is None else found.text(limit))
    return 0
