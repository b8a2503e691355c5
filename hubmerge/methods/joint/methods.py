"""The joint methods of this package."""

from __future__ import annotations

from hubmerge.methods.joint.base import JointMethod
from hubmerge.methods.joint.combination import Linear, Slerp
from hubmerge.methods.joint.task_vectors import TaskArithmetic, Ties

JOINT_METHODS: tuple[JointMethod, ...] = (
    Linear(),
    Slerp(),
    TaskArithmetic(),
    Ties(),
)
