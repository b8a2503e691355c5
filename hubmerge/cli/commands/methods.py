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
    command = command_context(context, quiet=quiet, json=json)
    progress = command.progress()
    for method in tools.methods():
        progress.event("method", asdict(method))
        if command.output_format == "text":
            progress.note(str(method))
    return 0
