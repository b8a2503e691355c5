"""Commands in several processes, started by `accelerate launch`, `torchrun` or `mpirun`.

The first process runs the command and gives the others tasks on tensors. Only the first process prints and uses the
Hub. All processes exit with its status.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hubmerge.api.launched import LaunchedProcesses, Processes

COMMANDS = ("run",)
"""Commands that use several processes."""

_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


def launched_count(environment: Mapping[str, str]) -> int:
    """Return the number of processes that a launcher started, from its environment variables; 1 without a launcher.

    >>> launched_count({"WORLD_SIZE": "8", "RANK": "3"})
    8
    """
    return max((_number(environment, name) for name in _COUNTS), default=1) or 1


def launched_rank(environment: Mapping[str, str]) -> int:
    """Return the rank of this process, from 0."""
    return max(_number(environment, name) for name in _RANKS)


def run_first(guarded: Callable[[Callable[[], int]], int], work: Callable[[Processes], int]) -> int:
    """Run the first process: do the work, then send its exit status to the other processes.

    Args:
        guarded: calls its argument, prints its error and returns the exit status.
        work: the command, given the connected processes.
    """
    from hubmerge.api.launched import connect_processes

    connected: list[LaunchedProcesses] = []

    def connect_and_work() -> int:
        connected.append(connect_processes())
        return work(connected[0])

    status = guarded(connect_and_work)
    for processes in connected:
        processes.end(status)
    _leave(connected, status)
    return status


def run_other(guarded: Callable[[Callable[[], int]], int]) -> int:
    """Run a process other than the first: do its tasks, and print only errors that the first cannot know of.

    Args:
        guarded: calls its argument, prints its error and returns the exit status.
    """
    from hubmerge.api.launched import connect_processes, work_for_first

    connected: list[LaunchedProcesses] = []

    def work() -> int:
        connected.append(connect_processes())
        return work_for_first(connected[0])

    status = guarded(work)
    _leave(connected, status)
    return status


def _leave(connected: list[LaunchedProcesses], status: int) -> None:
    """Disconnect and end this process; return only if it was never connected."""
    # A launcher terminates the remaining processes when one has failed. This one is about to end anyway.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for processes in connected:
        processes.close()
    if connected:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        # Skips the shutdown of the interpreter, in which a gloo thread that still releases the tensors of its last
        # operation aborts the process by SIGABRT (https://github.com/pytorch/pytorch/pull/179291).
        os._exit(status)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    return int(text) if text.isdigit() else 0
