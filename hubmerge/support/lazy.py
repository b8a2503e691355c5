"""Imports at first use of torch and of numpy. Checking a recipe needs no arithmetic.

Importing torch takes about two seconds, numpy a seventh of one. Modules that only use them inside functions import them
from here:

    from hubmerge.support.lazy import np, torch
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["functions_at_first_call", "np", "torch"]


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


@contextmanager
def functions_at_first_call(module: str, *functions: str) -> Iterator[None]:
    """Let libraries that are imported meanwhile take functions of a module, which is loaded at their first call.

    Reading any other name of the module loads it. A module that is loaded already is left as it is.
    """
    if module in sys.modules:
        yield
        return
    stand_in = ModuleType(module)

    def end() -> None:
        if sys.modules.get(module) is stand_in:
            del sys.modules[module]

    def load(name: str) -> Any:
        if name.startswith("__"):  # `inspect` asks every module for its file
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        end()
        return getattr(importlib.import_module(module), name)

    def at_call(name: str) -> Callable[..., Any]:
        return lambda *arguments, **named: load(name)(*arguments, **named)

    vars(stand_in).update({name: at_call(name) for name in functions}, __getattr__=load)
    sys.modules[module] = stand_in
    try:
        yield
    finally:
        end()
