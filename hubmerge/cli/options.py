"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from hubmerge.cli.output import CommandContext
from hubmerge.support.paths import user_cache_folder

MERGE, CHECK, PUBLISH, AUTOMATE, STUDY, TOOLS = "Merge", "Check", "Publish", "Automate", "Study", "Tools"
"""Panels of the help, in order."""

_WAITING = frozenset({"watch", "serve", "demo"})
"""Commands that wait for something to do, or whose work another process shows."""

RECIPE_HELP = "YAML file of the recipe."


Recipe: TypeAlias = Annotated[Path, typer.Argument(metavar="RECIPE", help=RECIPE_HELP)]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and nothing else.")]
Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per line instead of text and bars.")
]
WorkDir: TypeAlias = Annotated[
    Path, typer.Option(metavar="DIR", help="Folder for states and caches.", show_default="user cache")
]
Requirement: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="What pip installs there to get hubmerge, such as 'hubmerge @ git+https://HOST/OWNER/REPO@COMMIT'.",
        show_default="where this one comes from",
    ),
]
WORK_DIR = user_cache_folder("runs")


def command_context(context: typer.Context, *, quiet: bool, json: bool) -> CommandContext:
    """Return the settings that all commands share, with the chosen output format.

    Raises:
        BadParameter: both formats are chosen.
    """
    if quiet and json:
        raise typer.BadParameter("--quiet and --json exclude each other")
    command = context.ensure_object(CommandContext)
    command.output_format = "json" if json else "quiet" if quiet else "text"
    command.title = None if context.info_name in _WAITING else context.info_name
    command.on_close = context.call_on_close
    return command
