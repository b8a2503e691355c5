"""Entry point of the command line: environment, errors and exit statuses.

Exit statuses: 0 done, also if there was nothing to do; 2 recipe or command line; 3 the Hub; 4 a checkpoint; 5 this
machine (disk full, folder not writable, missing package); 6 `verify` found a difference, 7 it could not check
everything; 10 `outdated` found a change; 130 interrupted; 1 internal error.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from typer.main import get_command

from hubmerge.cli import launch, other_words
from hubmerge.cli.output import CommandContext, print_error
from hubmerge.support import interrupts
from hubmerge.support.endpoint import check_endpoint
from hubmerge.support.redaction import without_token

if TYPE_CHECKING:
    from hubmerge.api.launched import Processes
    from hubmerge.errors import HubmergeError

COMPLETION_VARIABLE = "_HUBMERGE_COMPLETE"
"""Environment variable by which a shell asks for completions."""

_UNEXPECTED = "Got unexpected extra argument(s)"
"""Beginning of the message of the parser about a word too many."""

_WITH_OUT = ("run", "read", "study", "report")
"""Commands whose results have a place that people coming from other tools give as the last word."""

_GARBAGE_THRESHOLD = 100_000
"""New objects between two searches for unused ones; with the usual 700, searches are a tenth of the start of torch."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after `hubmerge`; those of this process by default.

    Returns:
        The exit status.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        gc.set_threshold(_GARBAGE_THRESHOLD)
    _prepare_environment()
    other = launch.launched_count(os.environ) > 1 and launch.launched_rank(os.environ) > 0
    try:
        with interrupts.handled(program=arguments is None, quiet=other, raises=not other):
            if launch.launched_count(os.environ) > 1:
                return _main_launched(words)
            return _guarded(words, lambda: call(words))
    finally:
        if arguments is None:
            gc.freeze()  # or Python searches half a million objects of torch again when it ends


def call(words: Sequence[str], processes: Processes | None = None) -> int:
    """Parse the words, do what they ask for and return the exit status.

    Raises:
        HubmergeError: the command failed, or HF_ENDPOINT contains a password.
        TyperException: the words are not a command.
    """
    from hubmerge.cli.app import app

    check_endpoint()
    command = get_command(app)
    if COMPLETION_VARIABLE in os.environ:
        command.main(list(words), prog_name="hubmerge")
    try:
        with command.make_context("hubmerge", list(words), obj=CommandContext(processes=processes)) as context:
            return int(command.invoke(context) or 0)
    except typer.Exit as end:
        return end.exit_code


def _main_launched(words: list[str]) -> int:
    """Run the command line in one of several processes that a launcher started."""

    def guarded(work: Callable[[], int]) -> int:
        return _guarded(words, work, interrupted="interrupted, or another process of the run ended")

    first = launch.launched_rank(os.environ) == 0
    command = next((word for word in words if not word.startswith("-")), "")
    if command not in launch.COMMANDS:
        return guarded(lambda: _refuse_launcher(command)) if first else 2
    return launch.run_first(guarded, lambda others: call(words, others)) if first else launch.run_other(guarded)


def _refuse_launcher(command: str) -> int:
    from hubmerge.errors import UsageError

    raise UsageError(
        f"{command or 'hubmerge'} works in one process", hint="start it without the launcher; only `run` uses several"
    )


def _guarded(words: Sequence[str], work: Callable[[], int], *, interrupted: str = "interrupted") -> int:
    """Do the work and return the exit status; print errors."""
    try:
        return work()
    except BrokenPipeError:
        # The reader of the output closed it (`| head`).
        _discard_output()
        return interrupts.INTERRUPTED if interrupts.requested() else 0
    except (Exception, KeyboardInterrupt) as error:
        interrupts.settle()
        shown = _as_hubmerge_error(error, words, interrupted)
        try:
            return print_error(shown, as_json="--json" in words)
        except OSError:
            # The terminal was closed.
            _discard_output()
            return shown.exit_code


def _discard_output() -> None:
    """Discard what is printed from now on."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _as_hubmerge_error(error: BaseException, words: Sequence[str], interrupted: str) -> HubmergeError:
    """Return any exception as an error with a message, a hint and an exit status."""
    from hubmerge.errors import DISK_FULL, HubmergeError, InternalError, MachineError, RunInterruptedError

    # A signal that arrives inside pydantic is the cause of a serialization error. After a stop, other errors follow.
    # The end of the input at a question is an `Abort`.
    stopped = isinstance(error, (KeyboardInterrupt, typer.Abort)) or isinstance(error.__cause__, KeyboardInterrupt)
    if stopped or interrupts.requested():
        return RunInterruptedError(interrupted, hint="run the same command again to continue")
    if isinstance(error, HubmergeError):
        return error
    if isinstance(error, typer.TyperException):
        return _usage_error(error)
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        place = error.filename or f"{_work_dir(words)} (work folder), or the output folder"
        return MachineError(f"disk full: {place}", hint="free some space; the next run continues", file=error.filename)
    if isinstance(error, OSError) and error.errno is not None and error.filename:
        hint = f"choose another {_chosen_by(error.filename)}, or repair this one; the next run continues"
        return MachineError(f"{error.filename}: {error.strerror}", hint=hint, file=str(error.filename))
    if isinstance(error, ModuleNotFoundError) and error.name:
        hint = "pip install 'hubmerge[demo]' installs the packages of the embedded Hub and of the demo"
        return MachineError(f"package {error.name} is not installed", hint=hint)
    return InternalError(f"internal error: {type(error).__name__}: {error}", hint=_write_details(error))


def _chosen_by(file: str | bytes) -> str:
    """Return the options or the variables that choose the folder of a file."""
    path = Path(os.fsdecode(file)).absolute()
    homes = {name: os.environ.get(name) for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")}
    found = (name for name, home in homes.items() if home and path.is_relative_to(Path(home).absolute()))
    return next(found, "--work-dir or --out")


def _work_dir(words: Sequence[str]) -> str:
    """Return the work folder that the command line names, or the default one."""
    from hubmerge.cli.options import WORK_DIR

    named = [after for word, after in itertools.pairwise(words) if word == "--work-dir"]
    named += [word.partition("=")[2] for word in words if word.startswith("--work-dir=")]
    return named[-1] if named else str(WORK_DIR)


def _usage_error(error: typer.TyperException) -> HubmergeError:
    from hubmerge.errors import UsageError

    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "hubmerge"
    message, hint = error.format_message().strip(), f"{command} --help"
    for separator in (" (Possible options: ", ". Did you mean "):
        message, found, possible = message.partition(separator)
        if found:
            hint = f"did you mean {possible.rstrip(').?')}? See {command} --help"
    return _known_mistake(message, command, error) or UsageError(
        f"{message[:1].lower()}{message[1:]}".rstrip("."), hint=hint
    )


def _known_mistake(message: str, command: str, error: typer.TyperException) -> HubmergeError | None:
    """Return the error with a better hint for words that other tools have, or None."""
    from hubmerge.errors import UsageError

    context, hint = getattr(error, "ctx", None), f"{command} --help"
    if message.startswith(_UNEXPECTED):
        found = message.removeprefix(_UNEXPECTED).strip("() ")
        command_name = command.rpartition(" ")[2]
        hint = f"write folders for results as --out {found}; see {hint}" if command_name in _WITH_OUT else hint
        return UsageError(f"unexpected argument: {found}", hint=hint)
    if message.startswith("No such option: ") and context is not None:
        known = [name for parameter in context.command.params for name in parameter.opts]
        better = other_words.hint_for_option(message.removeprefix("No such option: ").rstrip("."), known)
        return UsageError(f"n{message[1:]}".rstrip("."), hint=f"{better}; see {hint}") if better else None
    if message.startswith("No such command "):
        better = other_words.hint_for_command(message.removeprefix("No such command ").strip("'."))
        return UsageError(f"n{message[1:]}".rstrip("."), hint=better) if better else None
    return None


def _prepare_environment() -> None:
    """Silence the libraries before they are imported: hubmerge draws its own bars and prints its own notes.

    An empty HF_ENDPOINT counts as not set: workflows pass an input that was not given as an empty text.
    """
    if not os.environ.get("HF_ENDPOINT", "x").strip():
        del os.environ["HF_ENDPOINT"]
    for name, value in {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # torch then asks for huge pages: the system fills large tensors by 2 MiB instead of 4 KiB at a time.
        "THP_MEM_ALLOC_ENABLE": "1",
    }.items():
        os.environ.setdefault(name, value)


def _write_details(error: BaseException) -> str:
    """Write the traceback to a file and return a hint that names the file."""
    text = without_token("".join(traceback.format_exception(error)))
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", prefix="hubmerge-error-", suffix=".txt", delete=False
        ) as file:
            file.write(text)
    except OSError as unwritten:
        return f"the details could not be written to a file ({unwritten.strerror}); please report what you did"
    return f"details: {file.name}; please report them"
