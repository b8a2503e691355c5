"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from hubmerge.cli.output import CommandContext
from hubmerge.support.paths import user_cache_folder

MERGE, CHECK, PUBLISH, AUTOMATE, STUDY, TOOLS = "Merge", "Check", "Publish", "Automate", "Study", "Tools"
"""Panels of the help, in order."""

RECIPE_HELP = "YAML file of the recipe."


def _choose_quiet(context: typer.Context, *, value: bool) -> bool:
    if value:
        _choose(context, "quiet")
    return value


def _choose_json(context: typer.Context, *, value: bool) -> bool:
    if value:
        _choose(context, "json")
    return value


def _choose(context: typer.Context, chosen: str) -> None:
    command = context.ensure_object(CommandContext)
    if command.output_format not in ("text", chosen):
        raise typer.BadParameter("--quiet and --json exclude each other")
    command.output_format = "json" if chosen == "json" else "quiet"


Recipe: TypeAlias = Annotated[Path, typer.Argument(metavar="RECIPE", help=RECIPE_HELP)]
Quiet: TypeAlias = Annotated[
    bool, typer.Option("--quiet", "-q", callback=_choose_quiet, help="Print errors and nothing else.")
]
Json: TypeAlias = Annotated[
    bool, typer.Option("--json", callback=_choose_json, help="Print one JSON object per line instead of text and bars.")
]
WorkDir: TypeAlias = Annotated[
    Path, typer.Option(metavar="DIR", help="Folder for states and caches.", show_default="user cache")
]
WORK_DIR = user_cache_folder("runs")


def command_context(context: typer.Context) -> CommandContext:
    """Return the settings that all commands share."""
    return context.ensure_object(CommandContext)
