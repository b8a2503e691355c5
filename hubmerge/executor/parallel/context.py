"""Context of the work on tensors: dtype, device, threads, processes and a listener, passed as one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from hubmerge.checkpoints import PlannedTensor
from hubmerge.executor.parallel.processes import SINGLE_PROCESS, Processes

CPU = torch.device("cpu")


@dataclass(frozen=True)
class ExecutorContext:
    """Settings of the work on tensors. Results do not depend on `workers` or `processes`.

    Attributes:
        input_dtype: all values of checkpoints are rounded to this dtype before the arithmetic; None for no rounding.
        device: the device of the arithmetic, which is float64.
        workers: number of threads; None for one per CPU.
        on_tensor: called with each tensor that is done.
        processes: the processes that share the work; all of them must make the same call.
        batches: matrices are merged in batches on the CPU too, as on an accelerator; for tests.
    """

    input_dtype: torch.dtype | None = None
    device: torch.device = CPU
    workers: int | None = None
    on_tensor: Callable[[PlannedTensor], None] | None = None
    processes: Processes = SINGLE_PROCESS
    batches: bool = False

    @property
    def together(self) -> bool:
        """True if several matrices are merged in one batch, since one would not keep the device busy."""
        return self.batches or self.device.type != "cpu"

    def portable(self) -> ExecutorContext:
        """Return the context without listener, processes and device, which other processes replace by their own."""
        return replace(self, on_tensor=None, processes=SINGLE_PROCESS, device=CPU)


DEFAULT_CONTEXT = ExecutorContext()
"""The CPU, one thread per CPU, one process."""
