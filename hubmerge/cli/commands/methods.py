"""`hubmerge methods`."""

from __future__ import annotations

from dataclasses import asdict

import typer

from hubmerge.api import tools
from hubmerge.cli.options import Json, Quiet, command_context


def methods(
    context: typer.Context,
    *,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """List the merge methods, built-in and from plug-ins."""
    progress = command_context(context).progress()
    for method in tools.methods():
        progress.event("method", asdict(method)) if command_context(context).output_format == "json" else progress.note(
            str(method)
        )
    return 0
