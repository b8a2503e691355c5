"""Checks over many values that fail where there is no value."""

from __future__ import annotations

from collections.abc import Iterable


def every(checks: Iterable[object]) -> bool:
    """Return whether there is a check and all of them hold: `all()` is also true of nothing.

    Args:
        checks: What has to hold, one after another.
    """
    found = [bool(check) for check in checks]
    return bool(found) and False not in found
