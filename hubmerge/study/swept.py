"""Parameters that a study sweeps."""

from __future__ import annotations

from collections.abc import Sequence

from hubmerge.study.results import CellResult


def swept_parameters(results: Sequence[CellResult]) -> list[str]:
    """Return the parameters with two or more numbers among their values."""
    found: dict[str, set[float]] = {}
    for result in results:
        for name, value in result.point.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                found.setdefault(name, set()).add(value)
    return [name for name, values in found.items() if len(values) > 1]
