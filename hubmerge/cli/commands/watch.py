"""`hubmerge watch`."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from hubmerge.api import automation
from hubmerge.cli.options import WORK_DIR, Json, Quiet, Recipe, WorkDir, command_context

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DEFAULT_HOST = "127.0.0.1"


def parse_duration(text: str) -> float:
    """Read a time such as `10m` and return its seconds.

    Raises:
        BadParameter: the text is not a time, or the time is zero.
    """
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smhd])", text)
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if seconds <= 0:
        raise typer.BadParameter(f"{text!r} is not a time: expected for example 90s, 10m, 6h or 1d")
    return seconds


def parse_address(text: str) -> tuple[str, int]:
    """Read `[HOST:]PORT`; port 0 stands for a free one.

    Raises:
        BadParameter: the text is not an address.
    """
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise typer.BadParameter(f"{text!r} is not an address: expected PORT or HOST:PORT")
    return host or DEFAULT_HOST, int(port)


def watch(
    context: typer.Context,
    recipe: Recipe,
    *,
    every: Annotated[
        float | None,
        typer.Option(
            parser=parse_duration,
            metavar="TIME",
            help="Time between two checks, such as 90s, 10m, 6h or 1d; 10m if --listen is not given either.",
        ),
    ] = None,
    listen: Annotated[
        Any,
        typer.Option(
            parser=parse_address,
            metavar="[HOST:]PORT",
            help="Receive webhooks of the Hub; their secret is in HUBMERGE_WEBHOOK_SECRET.",
        ),
    ] = None,
    work_dir: WorkDir = WORK_DIR,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Run the recipe whenever something changes on the Hub."""
    progress = command_context(context, quiet=quiet, json=json).progress()
    automation.watch(recipe, every=every, listen=listen, work_dir=work_dir, progress=progress)
    return 0
