"""Installed versions of the libraries that results depend on."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = ("hubmerge", "torch", "transformers", "huggingface_hub", "safetensors")
"""Libraries of a merge."""

EVALUATION_LIBRARIES = ("datasets", "evaluate")
"""Libraries of the tasks."""

KIND_LIBRARIES = {"lm-eval": ("lm_eval", "sacrebleu"), "generation": ("sacrebleu",)}
"""Further libraries of some kinds of task, by kind."""

INSTALL_EVAL = "pip install 'hubmerge[eval]'"
"""Command that adds the libraries of tasks to an installed hubmerge, wherever it was installed from."""


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each distribution."""
    return {name: version(name) for name in names}


def is_installed(name: str) -> bool:
    """Return True if a distribution is installed."""
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
