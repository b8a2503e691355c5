"""Arguments and options that several commands have."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from hubmerge.cli.output import CommandContext
from hubmerge.errors import UsageError
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


def is_given(context: typer.Context, name: str) -> bool:
    """Return True if an option is on the command line, by the name of its parameter."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def refuse_unused(
    context: typer.Context, names: Iterable[str], *, without: str | None = None, beside: str | None = None
) -> None:
    """Refuse options on the command line that would have no effect.

    Args:
        context: the context of the command.
        names: the names of their parameters.
        without: the option that they need, which is not given.
        beside: the option that is given, with which they have no effect.

    Raises:
        UsageError: one of them is given.
    """
    given = [
        max(one.opts, key=len) for one in context.command.params if one.name in names and is_given(context, one.name)
    ]
    if not given:
        return
    flags, has = ", ".join(given), "has" if len(given) == 1 else "have"
    if without is not None:
        raise UsageError(f"{flags} {has} no effect without {without}", hint=f"add {without}, or remove {flags}")
    raise UsageError(f"{flags} {has} no effect with {beside}", hint=f"remove {flags}, or remove {beside}")


def refuse_quiet_details(context: typer.Context, *, quiet: bool, json: bool) -> None:
    """Refuse --verbose, which adds to the text, where no text is printed.

    Raises:
        UsageError: it is given with --quiet or --json.
    """
    if quiet or json:
        refuse_unused(context, ("verbose",), beside="--quiet" if quiet else "--json")
