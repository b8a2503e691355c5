"""Processes started by `accelerate launch`, `torchrun` or `mpirun`: connection and exchange of values."""

from __future__ import annotations

import contextlib
import os
import threading
from datetime import timedelta
from typing import Any

from hubmerge.errors import MachineError
from hubmerge.executor.parallel.processes import Shutdown, mark_shared
from hubmerge.support import interrupts

TIMEOUT = timedelta(hours=12)
"""Longest wait for a process that is alive and does not answer. A process that exited is noticed at once."""


class LaunchedProcesses:
    """Implementation of `Processes` for a launcher, with a gloo group for the exchange.

    A gloo group notices within moments that a process exited, on any device.

    Raises:
        MachineError: the processes could not connect.
    """

    def __init__(self) -> None:
        import torch
        import torch.distributed
        from accelerate import PartialState

        cpu_requested = os.environ.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true", "yes"}
        try:
            state = PartialState(cpu=cpu_requested or not torch.accelerator.is_available(), timeout=TIMEOUT)
            self.rank: int = state.process_index
            self.count: int = state.num_processes
            self._group = torch.distributed.new_group(backend="gloo", timeout=TIMEOUT) if self.count > 1 else None
        except (RuntimeError, ValueError) as error:
            raise MachineError(
                f"the processes of this run could not connect: {_first_line(error)}",
                hint="start them with `accelerate launch` or `torchrun`, with one address and port for all",
            ) from error
        self.on_this_machine = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "") or self.count))
        self.task_lock = threading.Lock()
        self._lost: MachineError | None = None

    def exchange(self, value: Any) -> list[Any]:
        """Send `value` to all processes and return the values of all, by rank.

        Raises:
            MachineError: another process exited; every later call raises it again.
        """
        import torch.distributed

        if self._group is None:
            return [value]
        if self._lost is not None:
            raise self._lost
        values: list[Any] = [None] * self.count
        try:
            # After half an exchange, no other exchange is possible.
            with interrupts.delayed():
                torch.distributed.all_gather_object(values, value, group=self._group)
        except RuntimeError as error:
            self._lost = MachineError(
                "another process of this run exited unexpectedly",
                hint="see its last output for the cause, then run the same command again to continue",
            )
            raise mark_shared(self._lost) from error
        return values

    def end(self, status: int) -> None:
        """Send the exit status of the run to the other processes. Call it in the first process."""
        if self._lost is None:
            with contextlib.suppress(MachineError):
                self.exchange(Shutdown(status))

    def close(self) -> None:
        """Disconnect from the other processes."""
        import torch.distributed

        if torch.distributed.is_initialized() and self._lost is None:
            torch.distributed.destroy_process_group()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
