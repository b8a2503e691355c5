"""OPCM's scale, and the treatment of tensors that are not weight matrices."""

from __future__ import annotations

from typing import Any, Literal

from hubmerge.methods.base import Method, Norms, ReadInput
from hubmerge.support.lazy import torch

Others = Literal["mean", "sum", "keep", "adaptive"]

OTHERS = (
    "all other tensors: `mean` or `sum` of their changes, `keep` those of the base model, or `adaptive`, the sum over "
    "OPCM's λ"
)
"""Description of the parameter."""


class ReadsOthers(Method):
    """Mixin of methods whose other tensors are sums in the state, for the values of `others` that divide them.

    Weight matrices are divided by the scale, as without the mixin.
    """

    reads_state = True

    def read(self, tensor: ReadInput[Any]) -> torch.Tensor:
        """Return the merged delta of a tensor that is not a weight matrix, as `others` says."""
        return read_other(tensor, tensor.parameters.others, float(tensor.norms.count))

    def read_matrix(self, tensor: ReadInput[Any]) -> torch.Tensor:
        """Return the accumulated delta over the scale."""
        return tensor.accumulated / self.scale(tensor.norms, tensor.parameters)


def read_other(tensor: ReadInput[Any], others: Others, weight: float) -> torch.Tensor:
    """Return the merged delta of a tensor whose accumulated delta is the sum of its changes.

    Args:
        tensor: the sum, and the norms of the whole model.
        others: the treatment.
        weight: sum of the weights of all entries.
    """
    if others == "keep":
        return torch.zeros_like(tensor.accumulated)
    if others == "sum":
        return tensor.accumulated
    if others == "adaptive":
        return tensor.accumulated / adaptive_scale(tensor.norms)
    return tensor.accumulated / weight if weight > 0.0 else tensor.accumulated


def adaptive_scale(norms: Norms) -> float:
    """Return λ_t = ||A_t|| / mean_{i<=t} ||τ_i||: 1 for the first task vector, and 1 if nothing changed at all."""
    if len(norms.task_vectors) == 1 or norms.accumulated == 0.0:
        return 1.0
    return norms.accumulated / (sum(norms.task_vectors) / max(1, norms.count))
