"""The layout that a merged model is written in, in words: for plan and card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubmerge.checkpoints import Selection, TensorInfo, TensorSpec
from hubmerge.checkpoints.matching.components import patterns_for
from hubmerge.checkpoints.matching.selection import ALL_TENSORS

KEPT_SHOWN = 6
"""So many patterns of tensors that are not merged are told."""

PREFIXES = {
    "CLIPVisionModel": "vision_model.",
    "CLIPTextModel": "text_model.",
    "SiglipVisionModel": "vision_model.",
    "SiglipTextModel": "text_model.",
    "Siglip2VisionModel": "vision_model.",
}
"""What stands in front of all names of a tower in transformers 4, and in transformers 5 need not."""


def written_layout(
    config: Mapping[str, Any], tensors: Mapping[str, TensorInfo | TensorSpec], selection: Selection = ALL_TENSORS
) -> str:
    """The class, the names and the dtypes that a model with this config.json has in its files.

    Where transformers 4 does not find the weights under these names, that is told too, and so are the tensors that
    stay the base model's because `selection` says so.
    """
    named = next(iter(config.get("architectures") or []), config.get("model_type", "a model"))
    dtypes = sorted({str(one.dtype).removeprefix("torch.") for one in tensors.values() if one.dtype.is_floating_point})
    told = f"{named}, named as in the base model's files ({min(tensors)}, ...), {' and '.join(dtypes)}"
    prefix = PREFIXES.get(str(named))
    if prefix is not None and not any(name.startswith(prefix) for name in tensors):
        told += f"; transformers 5 alone reads these names, transformers 4 wants {prefix} in front of them"
    merged = [name for name in tensors if selection.covers(name)]
    kept = patterns_for([name for name in tensors if not selection.covers(name)], merged)
    if kept:
        more = f" and {len(kept) - KEPT_SHOWN} more" if len(kept) > KEPT_SHOWN else ""
        told += f"; not merged, as the base model has them: {', '.join(kept[:KEPT_SHOWN])}{more}"
    return told
