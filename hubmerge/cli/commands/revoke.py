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
    steps = published.revoke(repo, entries, only=only, work_dir=work_dir, progress=progress)
    print_run(steps, progress)
    added = [step for step in steps.steps if step.revokes is not None]
    if added:
        progress.note(
            "lines for the end of `models` in your copy of the recipe (runs without them keep the entry out too):"
        )
    for step in added:
        progress.note(f'  - {{model: "{step.reference}", revoke: "{step.revokes}"}}')
    return 0
