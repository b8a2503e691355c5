"""Merge methods, one small file each. Importing them does not import torch."""

from __future__ import annotations

from hubmerge.methods.base import Absorbed, Method, MethodParameters, NoParameters, Norms, ReadInput, Sweep, TensorInput
from hubmerge.methods.opcm import Opcm
from hubmerge.methods.registry import (
    METHODS,
    FaultyMethod,
    InstalledMethod,
    find_method,
    given_method,
    installed_methods,
    method_named,
    method_names,
)

__all__ = [
    "METHODS",
    "Absorbed",
    "FaultyMethod",
    "InstalledMethod",
    "Method",
    "MethodParameters",
    "NoParameters",
    "Norms",
    "Opcm",
    "ReadInput",
    "Sweep",
    "TensorInput",
    "find_method",
    "given_method",
    "installed_methods",
    "method_named",
    "method_names",
]
