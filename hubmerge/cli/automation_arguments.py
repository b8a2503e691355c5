"""The arguments of the commands that merge by themselves; what they do stands in `hubmerge.cli.automation_commands`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

COMMANDS = frozenset({"lock", "outdated", "watch", "init", "deploy"})
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DEFAULT_HOST = "127.0.0.1"


def add_commands(commands: Any, output: argparse.ArgumentParser, work_dir: Path) -> None:
    """Add the commands to the command line's parser."""
    lock = commands.add_parser("lock", parents=[output], help="write RECIPE.lock.yaml: every reference at one commit")
    lock.add_argument("recipe", type=Path, metavar="RECIPE")
    lock.add_argument(
        "--update", action="store_true", help="take the newest commit of everything that is not yet published"
    )

    outdated = commands.add_parser(
        "outdated", parents=[output], help="show what moved on the Hub; exit status 10 if anything did"
    )
    outdated.add_argument("recipe", type=Path, metavar="RECIPE")

    watch = commands.add_parser("watch", parents=[output], help="run the recipe whenever something moved on the Hub")
    watch.add_argument("recipe", type=Path, metavar="RECIPE")
    watch.add_argument("--every", type=duration, metavar="TIME", help="check so often: 90s, 10m, 6h, 1d (default: 10m)")
    watch.add_argument(
        "--listen",
        type=address,
        metavar="[HOST:]PORT",
        help="receive the Hub's webhooks; their secret stands in HUBMERGE_WEBHOOK_SECRET",
    )
    watch.add_argument("--work-dir", type=Path, metavar="DIR", default=work_dir, help="state and caches")

    init = commands.add_parser("init", parents=[output], help="write the workflow that runs a recipe by itself")
    init.add_argument("recipe", type=Path, metavar="RECIPE")
    init.add_argument("--github", action="store_true", required=True, help="a GitHub workflow")
    init.add_argument("--oidc", action="store_true", help="publish without a stored token (trusted publishing)")
    init.add_argument("--every", metavar="CRON", default="17 */6 * * *", help="default: '17 */6 * * *', in UTC")
    init.add_argument("--force", action="store_true", help="replace a workflow that is there")

    deploy = commands.add_parser("deploy", help="let the recipe run somewhere else")
    places = deploy.add_subparsers(dest="place", metavar="PLACE", required=True)
    job = places.add_parser("hub-job", parents=[output], help="a job on the Hub: scheduled, or started by webhooks")
    job.add_argument("recipe", type=Path, metavar="RECIPE")
    when = job.add_mutually_exclusive_group()
    when.add_argument("--schedule", metavar="CRON", default="@daily", help="default: @daily")
    when.add_argument("--on-update", action="store_true", help="start when a source repo changes, by a webhook")
    job.add_argument("--flavor", default="cpu-upgrade", help="the Hub's hardware (default: cpu-upgrade)")
    job.add_argument("--timeout", default="6h", help="the longest a run may take (default: 6h)")
    job.add_argument("--yes", action="store_true", help="create it; without this it is only shown")


def duration(text: str) -> float:
    """Read a time such as `10m` in seconds.

    Raises:
        ArgumentTypeError: it is none, or zero.
    """
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smhd])", text)
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time: expected for example 90s, 10m, 6h or 1d")
    return seconds


def address(text: str) -> tuple[str, int]:
    """Read `[HOST:]PORT`; port 0 lets the system choose one.

    Raises:
        ArgumentTypeError: it is none.
    """
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address: expected PORT or HOST:PORT")
    return host or DEFAULT_HOST, int(port)
