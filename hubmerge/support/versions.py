"""Installed versions of the libraries that results depend on."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version

LIBRARIES = ("hubmerge", "torch", "transformers", "huggingface_hub", "safetensors")
"""Libraries of a merge."""

EVALUATION_LIBRARIES = ("datasets", "evaluate")
"""Libraries of the tasks."""


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each distribution."""
    return {name: version(name) for name in names}
