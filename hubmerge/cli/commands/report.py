"""`hubmerge report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hubmerge.api import pages
from hubmerge.cli.options import Json, Quiet, command_context


def report(
    context: typer.Context,
    published: Annotated[
        str,
        typer.Argument(
            metavar="REPO[@step-03]|FOLDER", help="Published repo or step, or the folder of a step or a study."
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Write the page to this file.")] = Path("report.html"),
    leave_one_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Add a section from the output of `inspect REPO --leave-one-out --json`."),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Write the report of a published step or of a study as one HTML page: scores, curves, norms, similarities."""
    progress = command_context(context, quiet=quiet, json=json).progress()
    path = pages.write_report(published, out, leave_one_out=leave_one_out)
    progress.note(f"report: {path}")
    progress.event("done", {"published": published, "report": str(path)})
    return 0
