"""`hubmerge revoke`."""

from __future__ import annotations

from typing import Annotated

import typer

from hubmerge.api import published
from hubmerge.cli.commands.run import print_run
from hubmerge.cli.options import WORK_DIR, Json, Quiet, WorkDir, command_context


def revoke(
    context: typer.Context,
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Published repo.")],
    entries: Annotated[list[str], typer.Argument(metavar="ENTRY...", help="Names of the entries to take out.")],
    *,
    only: Annotated[
        bool, typer.Option("--only", help="Keep newer commits of these entries, which on_update merged as NAME-2.")
    ] = False,
    work_dir: WorkDir = WORK_DIR,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Publish a step in which entries of a stream were never merged."""
    progress = command_context(context, quiet=quiet, json=json).progress()
    print_run(published.revoke(repo, entries, only=only, work_dir=work_dir, progress=progress), progress)
    progress.note("add to your copy of the recipe, at the end of `models`, the entries with `revoke` from its repo")
    return 0
