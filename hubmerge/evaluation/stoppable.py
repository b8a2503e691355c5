"""Models whose computation ends at the next layer after a signal: a batch of images can take a minute."""

from __future__ import annotations

from typing import Any

from hubmerge.support import interrupts


def stoppable(model: Any) -> Any:
    """Make a model raise KeyboardInterrupt at its next layer after a signal, and return it."""
    for module in model.modules():
        module.register_forward_pre_hook(_check)
    return model


def _check(_module: Any, _inputs: Any) -> None:
    interrupts.check()
