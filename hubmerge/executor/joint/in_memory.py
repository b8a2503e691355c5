"""Joint merge in memory, for state dicts and studies."""

from __future__ import annotations

import torch

from hubmerge.checkpoints import TensorInfo
from hubmerge.executor.joint.inputs import JointMerge
from hubmerge.executor.joint.write import merged_pieces
from hubmerge.executor.parallel.context import DEFAULT_CONTEXT, ExecutorContext


class JointModel:
    """Merged model whose tensors are merged when they are read.

    A scorer treats models with the same `label` as the same model.
    """

    def __init__(
        self, joint: JointMerge, *, label: str = "the merged model", context: ExecutorContext = DEFAULT_CONTEXT
    ) -> None:
        self.label = label
        self.tensors: dict[str, TensorInfo] = dict(joint.base.tensors)
        self._joint, self._context = joint, context
        self._planned = {tensor.name: tensor for tensor in joint.plan.tensors}
        self._tied = dict(joint.plan.left_out)

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor of the merged model, rounded as it would be written.

        Raises:
            CheckpointError: a value is not finite, or does not fit into its dtype.
        """
        planned = self._planned.get(self._tied.get(name, name))
        if planned is None or planned.copied:
            return self._joint.base.read(name)
        pieces = merged_pieces(self._joint, planned, self._context)
        return torch.cat([piece.clone() for piece in pieces]).view(planned.shape)
