"""Layout of a merged model's files in words, for plan and card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hubmerge.checkpoints import Selection, TensorInfo, TensorSpec
from hubmerge.checkpoints.checkpoint import first_architecture
from hubmerge.checkpoints.matching.components import patterns_for
from hubmerge.checkpoints.matching.selection import ALL_TENSORS
from hubmerge.support.text import listed

KEPT_SHOWN = 6
"""Number of patterns of kept tensors that are shown."""

PREFIXES = {
    "CLIPVisionModel": "vision_model.",
    "CLIPTextModel": "text_model.",
    "SiglipVisionModel": "vision_model.",
    "SiglipTextModel": "text_model.",
    "Siglip2VisionModel": "vision_model.",
}
"""Prefix of all tensor names of a tower, which transformers 4 requires and transformers 5 does not."""


def written_layout(
    config: Mapping[str, Any], tensors: Mapping[str, TensorInfo | TensorSpec], selection: Selection = ALL_TENSORS
) -> str:
    """Return the class, the tensor names and the dtypes of a model's files, in words.

    Args:
        config: The config.json.
        tensors: The tensors of the files.
        selection: Rules on tensor names; the tensors that they keep from the base model are listed.
    """
    model_class = _class_name(config)
    dtypes = sorted({str(one.dtype).removeprefix("torch.") for one in tensors.values() if one.dtype.is_floating_point})
    text = f"{model_class}, named as in the base model's files ({min(tensors)}, ...), {' and '.join(dtypes)}"
    if prefix := missing_prefix(config, tensors):
        text += f"; these names load in transformers 5 only, transformers 4 expects the prefix {prefix}"
    merged = [name for name in tensors if selection.covers(name)]
    kept = patterns_for([name for name in tensors if not selection.covers(name)], merged)
    if kept:
        text += f"; kept from the base model: {listed(kept, KEPT_SHOWN)}"
    return text


def missing_prefix(config: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """Return the prefix that transformers 4 expects and tensor names lack, None if both versions load the files."""
    prefix = PREFIXES.get(str(_class_name(config)))
    return None if prefix is None or any(name.startswith(prefix) for name in names) else prefix


def _class_name(config: Mapping[str, Any]) -> str:
    """Return the class that a config names, or what else it says about the model."""
    named = first_architecture(config) or config.get("model_type")
    for key in ("_class_name", "architecture"):  # diffusers and timm
        named = named or config.get(key)
    if named is None and "model_cfg" in config:
        return "a model of open_clip"
    return str(named or "a model")
