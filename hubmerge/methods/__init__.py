"""Merge methods, one small file each. Importing them does not import torch."""

from __future__ import annotations

from hubmerge.methods.base import Absorbed, Method, MethodParameters, NoParameters, Norms, ReadInput, Sweep, TensorInput
from hubmerge.methods.joint.base import JointMethod, JointParameters, TensorView
from hubmerge.methods.joint.methods import JOINT_METHODS
from hubmerge.methods.opcm import Opcm
from hubmerge.methods.registry import (
    METHODS,
    AnyMethod,
    FaultyMethod,
    InstalledMethod,
    find_method,
    given_method,
    installed_methods,
    is_joint,
    method_named,
    method_names,
    method_of,
)

__all__ = [
    "JOINT_METHODS",
    "METHODS",
    "Absorbed",
    "AnyMethod",
    "FaultyMethod",
    "InstalledMethod",
    "JointMethod",
    "JointParameters",
    "Method",
    "MethodParameters",
    "NoParameters",
    "Norms",
    "Opcm",
    "ReadInput",
    "Sweep",
    "TensorInput",
    "TensorView",
    "find_method",
    "given_method",
    "installed_methods",
    "is_joint",
    "method_named",
    "method_names",
    "method_of",
]
