"""Parameters that stand for several others, such as `form` of `opcm`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OPCM_FORMS: Mapping[str, Mapping[str, str]] = {
    "paper": {"diagonal": "remove", "rank_rule": "paper"},
    "released": {"diagonal": "keep", "rank_rule": "fusion_bench"},
    "stable": {"diagonal": "keep", "rank_rule": "paper"},
}
"""Parameters that each value of `form` of `opcm` stands for."""

SHORTHANDS: Mapping[str, Mapping[str, Mapping[str, Mapping[str, str]]]] = {"opcm": {"form": OPCM_FORMS}}
"""By method, the parameters that stand for others, and what each of their values stands for."""


def expanded(method: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a method with others in the places of shorthands; unknown values stay.

    Example:
        >>> expanded("opcm", {"form": "released", "alpha": 0.4})
        {'diagonal': 'keep', 'rank_rule': 'fusion_bench', 'alpha': 0.4}
    """
    found = dict(parameters)
    for name, values in SHORTHANDS.get(method, {}).items():
        value = found.get(name)
        if isinstance(value, str) and value in values:
            del found[name]
            found = {**values[value], **found}
    return found
