"""Mean, sum and adaptive scale, read out of moments."""

from __future__ import annotations

from pydantic import Field

from hubmerge.methods.base import ReadInput
from hubmerge.methods.moments.base import MomentMethod, MomentParameters, Moments
from hubmerge.methods.others import Others, read_other
from hubmerge.support.lazy import torch


class SumsParameters(MomentParameters):
    """Parameters of `sums`."""

    matrices: Others = Field("mean", description="weight matrices: as for `others`")
    scaling: float = Field(1.0, gt=0.0, description="factor of the merged weight matrices")


class Sums(MomentMethod):
    """Mean, sum or adaptive scale of the task vectors, from S alone. D = scaling S / c, scaling S or scaling S / λ.

    For comparisons with other methods on one state; as methods of their own they are `weight_average`,
    `task_arithmetic` and `adaptive_scale`, with smaller states.
    """

    name = "sums"
    summary = "mean, sum or adaptive scale, read out of moments"
    source = "arXiv:2203.05482, arXiv:2212.04089 and arXiv:2501.09522, Section 4"
    Parameters = SumsParameters

    def read_moments(self, moments: Moments, tensor: ReadInput[SumsParameters]) -> torch.Tensor:
        """Return D, (m, n)."""
        parameters = tensor.parameters
        return parameters.scaling * read_other(tensor, parameters.matrices, moments.weight)
