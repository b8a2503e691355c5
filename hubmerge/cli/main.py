"""The command line: arguments, environment and exit statuses; what a command does stands in `hubmerge.cli.commands`.

Exit statuses: 0 done, also when nothing was left to do; 2 the recipe or the command line; 3 the Hub; 4 a checkpoint;
5 this machine (disk full, folder not writable, a package missing); 6 `verify` found a difference; 10 `outdated` found
that something moved; 130 interrupted; 1 something not foreseen.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hubmerge.cli import launch
from hubmerge.cli.automation_arguments import COMMANDS as AUTOMATION
from hubmerge.cli.automation_arguments import add_commands as add_automation
from hubmerge.cli.launch import INTERRUPTED
from hubmerge.support.version import VERSION

if TYPE_CHECKING:
    from hubmerge.executor.parallel.processes import Processes
from hubmerge.support.paths import user_cache_folder
from hubmerge.support.redaction import without_token


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="hubmerge",
        description="Merge a stream of fine-tuned models from the Hugging Face Hub into one, and publish every step.",
        epilog="The Hub is chosen by HF_ENDPOINT and HF_TOKEN. Exit status: 0 done, 2 recipe, 3 Hub, 4 checkpoint, "
        "5 this machine, 6 verify found a difference, 10 something moved (outdated), 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"hubmerge {VERSION}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    output = argparse.ArgumentParser(add_help=False)
    output_format = output.add_mutually_exclusive_group()
    output_format.add_argument("--quiet", "-q", action="store_true", help="print errors and nothing else")
    output_format.add_argument(
        "--json", action="store_true", help="print one JSON object a line instead of text and bars"
    )

    run = commands.add_parser("run", parents=[output], help="merge, evaluate and publish what is missing")
    run.add_argument("recipe", type=Path, metavar="RECIPE")
    run.add_argument("--out", type=Path, metavar="DIR", help="leave the last merged model there")
    run.add_argument(
        "--every-step", action="store_true", help="with --out: each step's, in DIR/step-01, DIR/step-02, ..."
    )
    run.add_argument("--locked", action="store_true", help="take every commit from RECIPE.lock.yaml, refuse any other")
    run.add_argument("--replay", action="store_true", help="make published steps anew from where the recipe differs")
    run.add_argument("--summary", type=Path, metavar="FILE", help="add the accuracy table to a file, as Markdown")
    run.add_argument(
        "--work-dir",
        type=Path,
        metavar="DIR",
        default=user_cache_folder("runs"),
        help="state and caches (default: user cache)",
    )

    check = commands.add_parser("check", parents=[output], help="check a recipe without any network")
    check.add_argument("recipe", type=Path, metavar="RECIPE")

    plan = commands.add_parser("plan", parents=[output], help="show what a run would do, from headers alone")
    plan.add_argument("recipe", type=Path, metavar="RECIPE")

    verify = commands.add_parser("verify", parents=[output], help="make a published step again and compare everything")
    verify.add_argument("release", metavar="REPO[@step-03]")
    verify.add_argument("--quick", action="store_true", help="check digests, chain and lock; compute nothing")
    verify.add_argument(
        "--work-dir", type=Path, metavar="DIR", default=user_cache_folder("runs"), help="default: user cache"
    )

    rollback = commands.add_parser("rollback", parents=[output], help="make a target repo hold an earlier step again")
    rollback.add_argument("repo", metavar="REPO")
    rollback.add_argument("--to", type=_step, required=True, metavar="step-03", dest="step")

    study = commands.add_parser(
        "study", parents=[output], help="merge one stream in many ways; tables and plots of all"
    )
    study.add_argument("study", type=Path, metavar="STUDY")
    study.add_argument("--out", type=Path, metavar="DIR", help="results, tables and plots (default: beside STUDY)")
    study.add_argument(
        "--cache", type=Path, metavar="DIR", default=user_cache_folder("runs") / "cache", help=argparse.SUPPRESS
    )

    add_automation(commands, output, user_cache_folder("runs"))
    commands.add_parser("schema", help="print the JSON Schema of recipes, for editors")

    hub = commands.add_parser("hub", help="the embedded Hub")
    hub_commands = hub.add_subparsers(dest="hub_command", metavar="COMMAND", required=True)
    serve = hub_commands.add_parser("serve", help="serve a Hub from a folder of this machine")
    serve.add_argument(
        "--root", type=Path, metavar="DIR", default=user_cache_folder("hub"), help="its files (default: user cache)"
    )
    serve.add_argument("--port", type=int, default=0, metavar="N", help="default: one that the system chooses")
    serve.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine alone")
    serve.add_argument("--throttle", type=_above_zero, metavar="MB/S", help="let no more through in each direction")
    serve.add_argument("--faults", type=_share, default=0.0, metavar="SHARE", help="let so many requests fail: 0 to 1")
    serve.add_argument("--fault-seed", type=int, default=0, metavar="N", help="which of them fail")

    demo = commands.add_parser("demo", parents=[output], help="make a tiny CLIP stream and merge it on an embedded Hub")
    demo.add_argument(
        "--root", type=Path, metavar="DIR", default=user_cache_folder("demo"), help="its files (default: user cache)"
    )
    demo.add_argument("--namespace", default="hubmerge-demo", help="where its repos go (default: hubmerge-demo)")
    return parser


def _step(text: str) -> int:
    number = text.removeprefix("step-")
    if not number.isdigit() or not int(number):
        raise argparse.ArgumentTypeError(f"{text} is no step: expected step-03, or 3")
    return int(number)


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share: expected a number from 0 to 1")
    return value


def _above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a speed: expected a number above 0")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = build_parser().parse_args(arguments)
    _prepare_environment()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if launch.launched_count(os.environ) > 1:
        return _main_launched(options)
    return _guarded(options, lambda: _dispatch(options))


def _main_launched(options: argparse.Namespace) -> int:
    """One of several processes that a launcher started."""

    def guarded(work: Callable[[], int]) -> int:
        return _guarded(options, work, interrupted="interrupted, or another process of the run ended")

    first = launch.launched_rank(os.environ) == 0
    if options.command not in launch.COMMANDS:
        message = f"{options.command} works in one process"
        return (
            _fail(options, message, "start it without the launcher: only `run` shares its work out", 2) if first else 2
        )
    return launch.run_first(guarded, lambda others: _dispatch(options, others)) if first else launch.run_other(guarded)


def _guarded(options: argparse.Namespace, work: Callable[[], int], *, interrupted: str = "interrupted") -> int:
    """Do the work and return the exit status; errors become words."""
    try:
        return work()
    except KeyboardInterrupt:
        return _fail(options, interrupted, "run the same command again to continue", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is wrong, and nothing more can be told.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _explain(options, error)


def _dispatch(options: argparse.Namespace, processes: Processes | None = None) -> int:
    from hubmerge.cli import commands

    if options.command == "hub":
        return commands.hub_serve(
            options.root,
            options.host,
            options.port,
            throttle=options.throttle,
            faults=options.faults,
            fault_seed=options.fault_seed,
        )
    if options.command == "schema":
        return commands.schema()
    if options.command == "demo":
        return commands.demo(options.root, options.namespace, _voice(options))
    if options.command == "verify":
        return commands.verify(options.release, options.work_dir, _voice(options), quick=options.quick)
    if options.command == "rollback":
        return commands.rollback(options.repo, options.step, _voice(options))
    if options.command == "check":
        return commands.check(options.recipe, _voice(options))
    if options.command == "plan":
        return commands.plan(options.recipe, _voice(options))
    if options.command == "study":
        return commands.study(options.study, options.out, options.cache, _voice(options))
    if options.command in AUTOMATION:
        from hubmerge.cli.automation_commands import dispatch

        return dispatch(options, _voice(options))
    from hubmerge.run.out_folder import OutFolder

    if options.every_step and options.out is None:
        return _fail(options, "--every-step: where to is not said", "add --out DIR", 2)
    out = None if options.out is None else OutFolder(options.out, options.every_step)
    return commands.run(
        options.recipe,
        options.work_dir,
        out,
        _voice(options),
        locked=options.locked,
        replay=options.replay,
        summary=options.summary,
        processes=processes,
    )


def _voice(options: argparse.Namespace) -> str:
    return "json" if options.json else "quiet" if options.quiet else "text"


def _prepare_environment() -> None:
    """Quieten the libraries before they are imported: the bars and notes of a run are hubmerge's own.

    An empty address of the Hub is none: so a workflow passes on an input that it was not given.
    """
    if not os.environ.get("HF_ENDPOINT", "x").strip():
        del os.environ["HF_ENDPOINT"]
    for name, value in {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Has torch ask for huge pages: the system fills in large tensors 2 MiB at a time instead of 4 KiB.
        "THP_MEM_ALLOC_ENABLE": "1",
    }.items():
        os.environ.setdefault(name, value)


def _explain(options: argparse.Namespace, error: Exception) -> int:
    from hubmerge.errors import DISK_FULL, HubmergeError
    from merge_recipes import RecipeError

    if isinstance(error, HubmergeError):
        return _fail(options, error.message, error.hint, error.exit_code)
    if isinstance(error, RecipeError):
        return _fail(options, str(error), None, 2)
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        work = getattr(options, "work_dir", None)
        where = f": the work folder's ({work}), or the one that the output goes to" if work else ""
        where = f" while writing {error.filename}" if error.filename else where
        return _fail(options, f"a disk is full{where}", "free some space; the next run continues", 5)
    if isinstance(error, OSError) and error.errno is not None and error.filename:
        hint = "choose another --work-dir or --out, or mend this one; the next run continues"
        return _fail(options, f"{error.filename} cannot be used: {error.strerror}", hint, 5)
    if isinstance(error, ModuleNotFoundError) and error.name:
        hint = "pip install 'hubmerge[demo]' brings everything the embedded Hub and the demo need"
        return _fail(options, f"the package {error.name} is not installed", hint, 5)
    return _fail(options, f"something not foreseen: {type(error).__name__}: {error}", _details(error), 1)


def _details(error: Exception) -> str:
    """Write the traceback to a file, and say where it is."""
    text = without_token("".join(traceback.format_exception(error)))
    try:
        with tempfile.NamedTemporaryFile("w", prefix="hubmerge-error-", suffix=".txt", delete=False) as file:
            file.write(text)
    except OSError as unwritten:
        return f"the details could not be written to a file ({unwritten.strerror}); please report what you did"
    return f"the details are in {file.name}; please report them"


def _fail(options: argparse.Namespace, message: str, hint: str | None, status: int) -> int:
    message, hint = without_token(message), hint and without_token(hint)
    if getattr(options, "json", False):
        print(json.dumps({"event": "error", "message": message, "hint": hint, "exit_code": status}), flush=True)
    else:
        print(f"hubmerge: {message}", file=sys.stderr)
        if hint:
            print(f"  hint: {hint}", file=sys.stderr)
    return status
