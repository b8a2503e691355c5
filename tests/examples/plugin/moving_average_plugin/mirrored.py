"""A task kind for hubmerge: zero-shot classification of images that are mirrored left to right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hubmerge.evaluation.zero_shot import PreparedZeroShot, ZeroShotImageClassification


class MirroredImageClassification(ZeroShotImageClassification):
    """The kind `mirrored-image-classification`."""

    name = "mirrored-image-classification"

    def prepare(self, *arguments: Any, **options: Any) -> PreparedZeroShot:
        """Prepare the task as for images that are not mirrored, then mirror the pixels (N, 3, H, W)."""
        prepared = super().prepare(*arguments, **options)
        return replace(prepared, pixels=np.ascontiguousarray(prepared.pixels[..., ::-1]))
