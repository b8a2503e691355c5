"""torch, imported when an attribute is first read: checking a recipe needs the merge methods, but no arithmetic.

Importing torch takes about two seconds. Modules that only use torch inside functions import it from here:

    from hubmerge.support.lazy import torch
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["torch"]


class LazyModule:
    """A module that is imported when an attribute is first read; attributes are then kept on the object."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self.__name__), attribute)
        setattr(self, attribute, value)
        return value


if not TYPE_CHECKING:
    torch = LazyModule("torch")
