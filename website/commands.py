"""Reference of the command line, generated from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from hubmerge.cli.app import EPILOG, app


def page() -> str:
    """Return the page in Markdown: every command with its arguments and options."""
    lines = ["# Command line", "", EPILOG, ""]
    for words, command in sorted(_commands(get_command(app), ())):
        lines += _section(" ".join(("hubmerge", *words)), command)
    return "\n".join(lines)


def _commands(group: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from _commands(command, (*words, name))
        else:
            yield (*words, name), command


def _section(title: str, command: Any) -> list[str]:
    lines = [f"## {title}", "", (command.help or "").strip(), ""]
    rows = [_row(parameter) for parameter in command.params if not getattr(parameter, "hidden", False)]
    if rows:
        lines += ["| argument or option | meaning | default |", "| :--- | :--- | :--- |", *rows, ""]
    return lines


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        shown = f"`{parameter.metavar or parameter.name.upper()}`"
    else:
        value = "" if isinstance(parameter.default, bool) else f" {parameter.metavar or parameter.name.upper()}"
        shown = ", ".join(f"`{option}{value}`" for option in (*parameter.opts, *parameter.secondary_opts))
    return f"| {shown} | {_plain(parameter.help or '').replace('|', chr(92) + '|')} | {_default(parameter)} |"


def _default(parameter: Any) -> str:
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    default = parameter.default
    return f"`{default}`" if isinstance(default, str | int | float) and not isinstance(default, bool) else ""


def _plain(text: str) -> str:
    return " ".join(text.split())
