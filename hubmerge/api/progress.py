"""The `progress` argument of the public functions."""

from __future__ import annotations

from typing import Literal, TypeAlias

from hubmerge.support.progress import Progress, SilentProgress

ProgressOption: TypeAlias = "Progress | Literal['auto'] | None"
"""`"auto"` draws bars in terminals and notebooks, None is silent, an object receives everything itself."""


def open_progress(progress: ProgressOption) -> Progress:
    """Return the object that receives the progress of a call.

    Args:
        progress: `"auto"`, None or an object with the methods of `hubmerge.support.progress.Progress`.
    """
    if progress is None:
        return SilentProgress()
    if progress != "auto":
        return progress
    from hubmerge.support.console import RichConsole

    console = RichConsole(bars_only=True)
    return console if console.draws_bars else SilentProgress()
