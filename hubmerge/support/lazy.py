"""Imports at first use: of torch, of numpy, and of the names of a package. Checking a recipe needs no arithmetic.

Importing torch takes about two seconds, numpy a seventh of one. Modules that only use them inside functions import them
from here:

    from hubmerge.support.lazy import np, torch
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["load_names", "np", "torch"]


class LazyModule:
    """A module that is imported when an attribute is first read; attributes are then kept on the object."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self.__name__), attribute)
        setattr(self, attribute, value)
        return value


if not TYPE_CHECKING:
    np, torch = LazyModule("numpy"), LazyModule("torch")


def load_names(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package that imports each of its public names when it is first used.

    Args:
        package: the name of the package.
        modules: the public names by the module that defines them.
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def load(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(module_of[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return load
