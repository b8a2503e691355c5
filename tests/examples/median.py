"""The elementwise median of the models, merged all at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hubmerge.methods import JointMethod, JointParameters


class Median(JointMethod):
    """θ = median of θ^(i), for each element."""

    name = "median"
    summary = "elementwise median of the models"
    source = "the median, by its definition"
    base = "model"
    blocks = "elements"

    def merge(
        self, base: torch.Tensor | None, tensors: Sequence[torch.Tensor], parameters: JointParameters[Any]
    ) -> torch.Tensor:
        """Return the median of a block."""
        return torch.stack(list(tensors)).median(0).values
