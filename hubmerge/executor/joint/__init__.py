"""Joint merges: every tensor from all models at once, written without a state."""

from __future__ import annotations

from hubmerge.executor.joint.in_memory import JointModel
from hubmerge.executor.joint.inputs import JointInput, JointMerge
from hubmerge.executor.joint.write import write_joint

__all__ = ["JointInput", "JointMerge", "JointModel", "write_joint"]
