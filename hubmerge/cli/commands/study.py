"""`hubmerge study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hubmerge.api import tools
from hubmerge.cli.options import WORK_DIR, Json, Quiet, command_context


def study(
    context: typer.Context,
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="YAML file of the study.")],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for results, tables and plots.", show_default="STUDY without its suffix"
        ),
    ] = None,
    cache: Annotated[Path, typer.Option(metavar="DIR", help="Folder for prepared datasets.", hidden=True)] = WORK_DIR
    / "cache",
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Merge one stream in many ways; write tables and plots."""
    command = command_context(context, quiet=quiet, json=json)
    progress = command.progress()
    result = tools.study(study, out=out, cache=cache, progress=progress)
    progress.event("study", {"out": str(result.folder), **result.table})
    if command.output_format == "text":
        progress.note(str(result))
    progress.note(f"results, tables and plots: {result.folder}")
    progress.event("done", {"out": str(result.folder)})
    return 0
