"""Metadata block at the top of a card, read from texts of other people."""

from __future__ import annotations

from typing import Any

import yaml

MAX_CARD_BYTES = 2 << 20
"""Size of the largest card whose metadata are read."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_front_matter(card: bytes) -> dict[str, Any]:
    """Return the metadata of a card; empty if there are none, or if they are not a YAML mapping."""
    if len(card) > MAX_CARD_BYTES:
        return {}
    lines = card.decode("utf-8", errors="replace").lstrip("\ufeff").splitlines()
    if not lines or lines[0].rstrip() != "---":
        return {}
    end = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        return {}
    try:
        metadata = yaml.load("\n".join(lines[1:end]), Loader=_LOADER)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, RecursionError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return {}
    return metadata if isinstance(metadata, dict) else {}
