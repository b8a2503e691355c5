"""`hubmerge read`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hubmerge.api import published
from hubmerge.api.recipes import plain_value
from hubmerge.cli.options import WORK_DIR, Json, Quiet, WorkDir, command_context


def parse_parameter(text: str) -> tuple[str, Any]:
    """Read a parameter with its value, as a recipe would.

    Example:
        >>> parse_parameter("scaling=1.2"), parse_parameter("others=keep")
        (('scaling', 1.2), ('others', 'keep'))

    Raises:
        BadParameter: the text is no parameter.
    """
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise typer.BadParameter(f"{text} is not a parameter: expected NAME=VALUE, such as scaling=1.2")
    try:
        return name, plain_value(value)
    except ValueError as error:
        raise typer.BadParameter(f"{text}: {error}") from None


def read(
    context: typer.Context,
    step: Annotated[
        str, typer.Argument(metavar="REPO[@step-03]", help="Published repo, and a step unless it is the newest.")
    ],
    *,
    method: Annotated[str, typer.Option(metavar="NAME", help="Method that reads the state.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Write the merged model to this folder.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Parameter of the method; may be repeated."),
    ] = None,
    work_dir: WorkDir = WORK_DIR,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Write the merged model that another method reads out of a published state."""
    progress = command_context(context, quiet=quiet, json=json).progress()
    values = dict(map(parse_parameter, parameter or ()))
    folder = published.read(step, method, out=out, parameters=values, work_dir=work_dir, progress=progress)
    progress.note(f"merged model: {folder}")
    progress.event("done", {"folder": str(folder), "method": method})
    return 0
