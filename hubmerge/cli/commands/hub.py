"""`hubmerge hub serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hubmerge.api import tools
from hubmerge.cli.options import refuse_unused

hub = typer.Typer(help="Serve an embedded Hub.", invoke_without_command=True)


def parse_bandwidth(text: str) -> float:
    """Read a positive number of MB/s.

    Raises:
        BadParameter: the text is not a positive number.
    """
    value = _number(text)
    if not 0 < value < float("inf"):
        raise typer.BadParameter(f"{text} is not a bandwidth: expected a number above 0")
    return value


def parse_fraction(text: str) -> float:
    """Read a number from 0 to 1.

    Raises:
        BadParameter: the text is not such a number.
    """
    value = _number(text)
    if not 0 <= value <= 1:
        raise typer.BadParameter(f"{text} is not a fraction: expected a number from 0 to 1")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


@hub.command()
def serve(
    context: typer.Context,
    *,
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of its files.", show_default="user cache")
    ] = None,
    port: Annotated[int, typer.Option(metavar="N", help="Port to listen on; 0 for a free one.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on; the default is this machine only.")] = "127.0.0.1",
    throttle: Annotated[
        float | None,
        typer.Option(parser=parse_bandwidth, metavar="MB/S", help="Limit the bandwidth in each direction."),
    ] = None,
    faults: Annotated[
        float, typer.Option(parser=parse_fraction, metavar="FRACTION", help="Fraction of requests that fail, 0 to 1.")
    ] = 0.0,
    fault_seed: Annotated[int, typer.Option(metavar="N", help="Seed that decides which requests fail.")] = 0,
) -> int:
    """Serve a Hub from a folder of this machine."""
    if not faults:
        refuse_unused(context, ("fault_seed",), without="--faults")
    tools.serve_hub(root, host=host, port=port, throttle=throttle, faults=faults, fault_seed=fault_seed)
    return 0
