"""`hubmerge sign`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hubmerge.api import published
from hubmerge.cli.options import Json, Quiet, command_context


def sign(
    context: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="REPO|FOLDER", help="Repo whose newest step is signed, or the folder of a step.")
    ],
    *,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Elliptic-curve private key in PEM, outside of the folder.")
    ] = None,
    keyless: Annotated[bool, typer.Option("--keyless", help="Sign with the identity of this CI job.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Sign a published step, or the step in a folder."""
    progress = command_context(context, quiet=quiet, json=json).progress()
    place = published.sign(target, key=key, keyless=keyless, progress=progress)
    progress.note(f"signature: {place}")
    progress.event("done", {"target": target, "signature": place})
    return 0
