"""The processes that `accelerate launch`, `torchrun` or `mpirun` started: how they find and hear each other."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from hubmerge.errors import MachineError
from hubmerge.executor.parallel.processes import Shutdown, mark_shared

PATIENCE = timedelta(hours=12)
"""How long a process waits for another that is there and does not answer. One that died is noticed at once."""


class LaunchedProcesses:
    """The processes of a launcher, as accelerate sees them, with a gloo group of their own for what they tell.

    A gloo group notices within moments that a process died, on any device.

    Raises:
        MachineError: the processes do not find each other.
    """

    def __init__(self) -> None:
        import torch
        import torch.distributed
        from accelerate import PartialState

        asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true", "yes"}
        try:
            state = PartialState(cpu=asked or not torch.accelerator.is_available(), timeout=PATIENCE)
            self.rank: int = state.process_index
            self.count: int = state.num_processes
            self._group = torch.distributed.new_group(backend="gloo", timeout=PATIENCE) if self.count > 1 else None
        except (RuntimeError, ValueError) as error:
            raise MachineError(
                f"the processes of this run do not find each other: {_first_line(error)}",
                hint="start them with accelerate launch or torchrun",
            ) from error
        self.on_this_machine = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "") or self.count))
        self.turn = threading.Lock()
        self._lost: MachineError | None = None

    def exchange(self, value: Any) -> list[Any]:
        """See `Processes`. Raises MachineError if another process is not there any more."""
        import torch.distributed

        found: list[Any] = [None] * self.count
        if self._group is None:
            return [value]
        if self._lost is not None:
            raise self._lost
        try:
            with _interrupts_afterwards():
                torch.distributed.all_gather_object(found, value, group=self._group)
        except RuntimeError as error:
            self._lost = MachineError(
                "another process of this run ended before its time",
                hint="what it wrote last says why; run the same command again to continue",
            )
            raise mark_shared(self._lost) from error
        return found

    def end(self, status: int) -> None:
        """Tell the other processes that the run is over; to be called in the first one."""
        if self._lost is None:
            with contextlib.suppress(MachineError):
                self.exchange(Shutdown(status))

    def close(self) -> None:
        """Leave the others."""
        import torch.distributed

        if torch.distributed.is_initialized() and self._lost is None:
            torch.distributed.destroy_process_group()


@contextlib.contextmanager
def _interrupts_afterwards() -> Iterator[None]:
    """Hold an interrupt back until the block ends: a meeting broken off half way could not be followed by another.

    The second one breaks it off all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, frame: object) -> None:
        if held:
            raise KeyboardInterrupt
        held.append(number)

    before = {number: signal.signal(number, hold) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if held:
        raise KeyboardInterrupt


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
