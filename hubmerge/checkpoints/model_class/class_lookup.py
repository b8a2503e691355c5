"""Lookup of a model's class in transformers."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CLASSES = "transformers.models.auto.modeling_auto"

# Keys of a config that name code, kernels, dtypes or files elsewhere; the layers do not depend on them.
_NOT_STRUCTURE = {
    "auto_map",
    "attn_implementation",
    "_attn_implementation",
    "_experts_implementation",
    "quantization_config",
    "use_pretrained_backbone",
    "_name_or_path",
    "torch_dtype",
    "dtype",
}


@dataclass(frozen=True)
class UnknownClass:
    """Answer for a config whose class transformers cannot provide.

    Attributes:
        reason: why not, in words.
    """

    reason: str


def find_class(config: Mapping[str, Any]) -> Any:
    """Return the class of transformers that loads a model with this config, or an `UnknownClass`.

    It is the first class in `architectures`, or without `architectures` the bare model of the `model_type`.
    """
    import transformers

    version = f"transformers {transformers.__version__}"
    if _architectures(config):
        found = named_class(config)
        return found or UnknownClass(f"{version} has no class {_architectures(config)[0]!r}")
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        return UnknownClass("config.json names no class and no model_type")
    return bare_class(model_type) or UnknownClass(f"{version} has no class for the model_type {model_type!r}")


def named_class(config: Mapping[str, Any]) -> Any:
    """Return the model class of transformers that comes first in `architectures`, None if there is no such class."""
    import transformers

    named = next(iter(_architectures(config)), None)
    found: Any = getattr(transformers, named, None) if isinstance(named, str) else None
    return found if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel) else None


def bare_class(model_type: str) -> Any:
    """Return the class of transformers for a model without a head, None if there is none for this `model_type`."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    if model_type not in CONFIG_MAPPING or CONFIG_MAPPING[model_type] not in MODEL_MAPPING:
        return None
    found = MODEL_MAPPING[CONFIG_MAPPING[model_type]]
    return found[0] if isinstance(found, tuple) else found


def structure_only(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without the keys that name code, kernels, dtypes or files elsewhere."""
    return {
        key: structure_only(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in _NOT_STRUCTURE
    }


def import_classes() -> None:
    """Import the lookup tables of transformers, which takes seconds.

    The import makes a million objects that stay. The garbage collector, which would search them again and again, is
    off meanwhile and skips them afterwards.
    """
    if _CLASSES in sys.modules:
        return
    collecting = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module("transformers.modeling_utils")
        importlib.import_module(_CLASSES)
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


def _architectures(config: Mapping[str, Any]) -> list[Any]:
    architectures = config.get("architectures")
    return architectures if isinstance(architectures, list) else []
