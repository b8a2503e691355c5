"""Several processes of one run, started by `accelerate launch`, `torchrun` or `mpirun`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hubmerge.executor.parallel.launched import LaunchedProcesses as LaunchedProcesses
    from hubmerge.executor.parallel.processes import Processes as Processes


def connect_processes() -> LaunchedProcesses:
    """Connect this process to the others that the launcher started.

    Raises:
        MachineError: the processes could not connect.
    """
    from hubmerge.executor.parallel.launched import LaunchedProcesses

    return LaunchedProcesses()


def work_for_first(processes: LaunchedProcesses) -> int:
    """Do the tasks of the first process until it ends, and return its exit status.

    Raises:
        HubmergeError: an error that the first process cannot know of.
    """
    from hubmerge.errors import HubmergeError
    from hubmerge.executor import pick_device
    from hubmerge.executor.parallel.processes import is_shared
    from hubmerge.executor.parallel.tasks import worker_loop
    from hubmerge.support.interrupts import INTERRUPTED

    try:
        return worker_loop(processes, pick_device())
    except KeyboardInterrupt:
        return INTERRUPTED
    except HubmergeError as error:
        if not is_shared(error):
            raise
        return error.exit_code
