"""`hubmerge demo`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from hubmerge.api import tools
from hubmerge.cli.options import Json, Quiet, command_context

_ARGUMENTS = {"text": [], "quiet": ["--quiet"], "json": ["--json"]}


def demo(
    context: typer.Context,
    *,
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of its files.", show_default="user cache")
    ] = None,
    namespace: Annotated[str, typer.Option(help="Owner of the repos.")] = "hubmerge-demo",
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Train a tiny CLIP stream and merge it on an embedded Hub."""
    command = command_context(context, quiet=quiet, json=json)
    tools.demo(
        root,
        namespace=namespace,
        endpoint=os.environ.get("HF_ENDPOINT"),
        arguments=_ARGUMENTS[command.output_format],
        progress=command.progress(),
    )
    return 0
