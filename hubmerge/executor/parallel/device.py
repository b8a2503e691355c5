"""Device of the arithmetic, and streams on it."""

from __future__ import annotations

import threading

import torch

from hubmerge.executor.parallel.context import CPU

_thread_local = threading.local()


def pick_device() -> torch.device:
    """Return the device that accelerate assigns to this process, or the CPU if that device has no float64.

    ACCELERATE_USE_CPU=1 in the environment selects the CPU.
    """
    if not torch.accelerator.is_available():
        return CPU
    from accelerate import PartialState  # takes half a second to import

    device: torch.device = PartialState().device
    return CPU if device.type in {"mps", "xla"} else device


def use_own_stream(device: torch.device) -> None:
    """Give this thread its own stream on an accelerator, so that one thread copies while another computes."""
    if device.type != "cpu" and getattr(_thread_local, "stream", None) is None:
        _thread_local.stream = torch.Stream(device)
        torch.accelerator.set_stream(_thread_local.stream)
