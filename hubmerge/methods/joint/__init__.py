"""Joint merge methods: all models at once, tensor by tensor. Importing them does not import torch."""

from __future__ import annotations

from hubmerge.methods.joint.base import JointMethod, JointParameters, TensorView

__all__ = ["JointMethod", "JointParameters", "TensorView"]
