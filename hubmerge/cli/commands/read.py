"""`hubmerge read`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hubmerge.api import reading
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


def parse_reading(text: str) -> dict[str, Any]:
    """Read a method with its parameters.

    Example:
        >>> parse_reading("iso_c scaling=1.2")
        {'method': 'iso_c', 'parameters': {'scaling': 1.2}}
    """
    method, *parameters = text.split() or [""]
    return {"method": method, "parameters": dict(map(parse_parameter, parameters))}


def read(
    context: typer.Context,
    step: Annotated[
        str,
        typer.Argument(
            metavar="REPO[@step-03]|DIR",
            help="Published repo or step; or folder that `run --out DIR --state` wrote.",
        ),
    ],
    *,
    method: Annotated[str | None, typer.Option(metavar="NAME", help="Method that reads the state.")] = None,
    choose: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'NAME NAME=VALUE'", help="Method to choose from, with its parameters; given twice or more."
        ),
    ] = None,
    on: Annotated[str | None, typer.Option(metavar="TASK", help="Task of the recipe that decides.")] = None,
    metric: Annotated[str | None, typer.Option(metavar="NAME", help="Metric of the task that decides.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Write the merged model to this folder.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Parameter of the method; may be repeated."),
    ] = None,
    work_dir: WorkDir = WORK_DIR,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Write the merged model that another method reads out of a published state.

    With --choose and --on, the best of several methods on a task of the recipe is taken.
    """
    progress = command_context(context, quiet=quiet, json=json).progress()
    values = dict(map(parse_parameter, parameter or ()))
    options = {"choose": [parse_reading(text) for text in choose or ()], "on": on, "metric": metric}
    choice = {name: value for name, value in options.items() if value} or None
    folder = reading.read(step, method, out=out, parameters=values, choice=choice, work_dir=work_dir, progress=progress)
    progress.note(f"merged model: {folder}")
    progress.event("done", {"folder": str(folder), "method": method})
    return 0
