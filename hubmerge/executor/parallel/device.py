"""Where the arithmetic happens."""

from __future__ import annotations

import threading

import torch

_of_thread = threading.local()


def pick_device() -> torch.device:
    """The device that accelerate gives this process; the CPU instead of one that has no float64 arithmetic.

    ACCELERATE_USE_CPU=1 in the environment asks for the CPU.
    """
    if not torch.accelerator.is_available():
        return torch.device("cpu")
    from accelerate import PartialState  # half a second to import, to no purpose without an accelerator

    device: torch.device = PartialState().device
    return torch.device("cpu") if device.type in {"mps", "xla"} else device


def use_own_stream(device: torch.device) -> None:
    """Let what this thread does on an accelerator wait for no other thread's: one copies while another computes."""
    if device.type != "cpu" and getattr(_of_thread, "stream", None) is None:
        _of_thread.stream = torch.Stream(device)
        torch.accelerator.set_stream(_of_thread.stream)
