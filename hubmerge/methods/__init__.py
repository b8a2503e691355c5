"""Merge methods, one small file each. A new one is a file here and a line in METHODS."""

from __future__ import annotations

from hubmerge.errors import HubmergeError
from hubmerge.methods.averaging import WeightAverage
from hubmerge.methods.base import (
    Absorbed,
    ChoosingMethod,
    DecomposingMethod,
    ElementwiseMethod,
    Method,
    MethodParameters,
    NoParameters,
    Norms,
    PartedMethod,
    PartedTensor,
    SurveyingMethod,
    Sweep,
)
from hubmerge.methods.dop import Dop
from hubmerge.methods.linear import Linear
from hubmerge.methods.magmax import MagMax
from hubmerge.methods.null_space import Nufilt, NullSpaceFilter
from hubmerge.methods.opcm import AdaptiveScale, Opcm
from hubmerge.methods.task_arithmetic import TaskArithmetic
from hubmerge.methods.ties import Ties

METHODS: tuple[Method, ...] = (
    Opcm(),
    AdaptiveScale(),
    WeightAverage(),
    Linear(),
    TaskArithmetic(),
    Ties(),
    MagMax(),
    NullSpaceFilter(),
    Nufilt(),
    Dop(),
)
"""All methods, the default first."""


def method_named(name: str) -> Method:
    """The method that a recipe calls `name`.

    Raises HubmergeError naming all methods if there is none of that name.
    """
    for method in METHODS:
        if method.name == name:
            return method
    raise HubmergeError(
        f"merge_method: there is no method {name!r}",
        hint="one of " + ", ".join(method.name for method in METHODS),
    )


__all__ = [
    "METHODS",
    "Absorbed",
    "ChoosingMethod",
    "DecomposingMethod",
    "ElementwiseMethod",
    "Method",
    "MethodParameters",
    "NoParameters",
    "Norms",
    "PartedMethod",
    "PartedTensor",
    "SurveyingMethod",
    "Sweep",
    "method_named",
]
