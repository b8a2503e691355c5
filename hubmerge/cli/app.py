"""The command line as a typer application."""

from __future__ import annotations

from typing import Annotated

import typer

from hubmerge.cli.commands.check import check
from hubmerge.cli.commands.combine import combine
from hubmerge.cli.commands.convert import convert
from hubmerge.cli.commands.demo import demo
from hubmerge.cli.commands.deploy import deploy
from hubmerge.cli.commands.diff import diff
from hubmerge.cli.commands.hub import hub
from hubmerge.cli.commands.init import init
from hubmerge.cli.commands.inspect import inspect
from hubmerge.cli.commands.lock import lock
from hubmerge.cli.commands.methods import methods
from hubmerge.cli.commands.outdated import outdated
from hubmerge.cli.commands.plan import plan
from hubmerge.cli.commands.read import read
from hubmerge.cli.commands.report import report
from hubmerge.cli.commands.revoke import revoke
from hubmerge.cli.commands.rollback import rollback
from hubmerge.cli.commands.run import run
from hubmerge.cli.commands.schema import schema
from hubmerge.cli.commands.sign import sign
from hubmerge.cli.commands.study import study
from hubmerge.cli.commands.verify import verify
from hubmerge.cli.commands.watch import watch
from hubmerge.cli.options import AUTOMATE, CHECK, MERGE, PUBLISH, STUDY, TOOLS
from hubmerge.support.version import VERSION

EPILOG = (
    "HF_ENDPOINT and HF_TOKEN choose the Hub. Exit status: 0 done, 2 recipe or command line, 3 Hub, 4 checkpoint, "
    "5 this machine, 6 verify found a difference, 7 verify could not check everything, 10 outdated found a change, "
    "130 interrupted, 1 internal error."
)

app = typer.Typer(
    name="hubmerge",
    help="Merge fine-tuned models from the Hugging Face Hub into one, and publish every step.",
    epilog=EPILOG,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.command(rich_help_panel=MERGE)(init)
app.command(rich_help_panel=MERGE)(run)
app.command(rich_help_panel=MERGE)(plan)
app.command(rich_help_panel=MERGE)(read)
app.command(rich_help_panel=MERGE)(combine)
app.command(rich_help_panel=CHECK)(check)
app.command(rich_help_panel=CHECK)(convert)
app.command(rich_help_panel=CHECK)(verify)
app.command(rich_help_panel=CHECK)(report)
app.command(rich_help_panel=CHECK)(inspect)
app.command(rich_help_panel=CHECK)(diff)
app.command(rich_help_panel=CHECK)(outdated)
app.command(rich_help_panel=PUBLISH)(lock)
app.command(rich_help_panel=PUBLISH)(rollback)
app.command(rich_help_panel=PUBLISH)(sign)
app.command(rich_help_panel=PUBLISH)(revoke)
app.command(rich_help_panel=AUTOMATE)(watch)
app.add_typer(deploy, name="deploy", rich_help_panel=AUTOMATE)
app.command(rich_help_panel=STUDY)(study)
app.command(rich_help_panel=TOOLS)(methods)
app.command(rich_help_panel=TOOLS)(schema)
app.add_typer(hub, name="hub", rich_help_panel=TOOLS)
app.command(rich_help_panel=TOOLS)(demo)


@app.callback()
def top(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Merge fine-tuned models from the Hugging Face Hub into one, and publish every step."""
    if version:
        print(f"hubmerge {VERSION}")
        raise typer.Exit
    print_help_without_command(context)


@deploy.callback()
@hub.callback()
def print_help_without_command(context: typer.Context) -> None:
    """Print the help of a group that is called without a command."""
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit
