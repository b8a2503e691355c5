"""`hubmerge methods`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from hubmerge.api import method_list
from hubmerge.cli.options import Json, Quiet, command_context


def methods(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Method to describe, with its parameters and its paper.")
    ] = None,
    *,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """List the merge methods, built-in and from plug-ins, or describe one."""
    command = command_context(context, quiet=quiet, json=json)
    progress = command.progress()
    for number, method in enumerate(method_list.methods(name)):
        progress.event("method", {**asdict(method), "papers": list(method.papers)})
        if command.output_format == "text":
            between = "\n" if name is not None and number else ""
            progress.note(f"{between}{method if name is None else method.details}")
    return 0
