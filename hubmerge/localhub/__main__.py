"""`python -m hubmerge.localhub [--root DIR] [--host ADDRESS] [--port N] [--throttle MB/S] [--faults RATE]`."""

from __future__ import annotations

import argparse
from pathlib import Path

from hubmerge.localhub.server import serve


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m hubmerge.localhub", description=serve.__doc__)
    parser.add_argument("--root", type=Path, default=Path("hub"), help="the folder of the Hub (default: ./hub)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=0, help="the port; 0 for any free port")
    parser.add_argument("--throttle", type=float, metavar="MB/S", help="limit the bandwidth in each direction")
    parser.add_argument(
        "--faults", type=float, default=0.0, metavar="RATE", help="fraction of requests that fail, from 0 to 1"
    )
    parser.add_argument("--fault-seed", type=int, default=0, help="seed that decides which requests fail")
    arguments = parser.parse_args()
    serve(**vars(arguments))


main()
