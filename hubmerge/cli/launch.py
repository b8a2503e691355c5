"""A command in several processes, started by `accelerate launch`, `torchrun` or `mpirun`.

The first process does what a single one would do, and hands the others their share of the work on tensors. It alone
speaks, to people and to the Hub. All processes end with one exit status.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hubmerge.executor.parallel.launched import LaunchedProcesses
    from hubmerge.executor.parallel.processes import Processes

COMMANDS = ("run",)
"""What can be shared out. Everything else is small, or serves."""

INTERRUPTED = 130
_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


def launched_count(environment: Mapping[str, str]) -> int:
    """How many processes a launcher started, told by its environment variables; 1 without a launcher.

    >>> launched_count({"WORLD_SIZE": "8", "RANK": "3"})
    8
    """
    return max((_number(environment, name) for name in _COUNTS), default=1) or 1


def launched_rank(environment: Mapping[str, str]) -> int:
    """Which one of them this is, counted from 0."""
    return max(_number(environment, name) for name in _RANKS)


def run_first(guarded: Callable[[Callable[[], int]], int], work: Callable[[Processes], int]) -> int:
    """In the first process: `work`, then tell the others how it ended.

    `guarded` calls what it is given and turns errors into words and an exit status.
    """
    found: list[LaunchedProcesses] = []

    def connected() -> int:
        found.append(_connect())
        return work(found[0])

    status = guarded(connected)
    for processes in found:
        processes.end(status)
    _leave(found, status)
    return status


def run_other(guarded: Callable[[Callable[[], int]], int]) -> int:
    """In every other process: do what the first one says. Silent, but for errors that the first cannot know of."""
    from hubmerge.errors import HubmergeError
    from hubmerge.executor import pick_device
    from hubmerge.executor.parallel.processes import is_shared, worker_loop

    found: list[LaunchedProcesses] = []

    def following() -> int:
        found.append(_connect())
        try:
            return worker_loop(found[0], device=pick_device())
        except KeyboardInterrupt:
            return INTERRUPTED
        except HubmergeError as error:
            if not is_shared(error):
                raise
            return error.exit_code

    status = guarded(following)
    _leave(found, status)
    return status


def _connect() -> LaunchedProcesses:
    from hubmerge.executor.parallel.launched import LaunchedProcesses

    return LaunchedProcesses()


def _leave(found: list[LaunchedProcesses], status: int) -> None:
    """Leave the others and end this process; return only if it never met them."""
    # A launcher ends what still runs when one process has failed; there is nothing left to be ended.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for processes in found:
        processes.close()
    if found:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        # Without the end of the interpreter: a thread of gloo that then still gives up the tensors of the last meeting
        # ends the process by SIGABRT (https://github.com/pytorch/pytorch/pull/179291).
        os._exit(status)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    return int(text) if text.isdigit() else 0
