"""Lookup of a model's class in transformers."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubmerge.checkpoints.checkpoint import architectures
from hubmerge.support.lazy import functions_at_first_call

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
# transformers 5 writes floats that JSON does not have as {"__float__": "Infinity"}.
_FLOAT_KEY = "__float__"
_FLOATS = ("Infinity", "-Infinity", "NaN")
_PEFT_TASKS = {
    "SEQ_CLS": "SEQUENCE_CLASSIFICATION",
    "TOKEN_CLS": "TOKEN_CLASSIFICATION",
    "QUESTION_ANS": "QUESTION_ANSWERING",
}
_NOT_LOADED = _NOT_STRUCTURE - {"quantization_config", "torch_dtype", "dtype"}


@dataclass(frozen=True)
class UnknownClass:
    """Answer for a config whose class transformers cannot provide.

    Attributes:
        reason: why not, in words.
    """

    reason: str


def find_class(config: Mapping[str, Any]) -> Any:
    """Return the class of transformers that loads a model with this config, or an `UnknownClass`.

    It is the first class in `architectures` that transformers has, or without `architectures` the bare model of the
    `model_type`.
    """
    import transformers

    version = f"transformers {transformers.__version__}"
    if architectures(config):
        found = named_class(config)
        return found or UnknownClass(f"{version} has no class {architectures(config)[0]!r}")
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        return UnknownClass("config.json names no class and no model_type")
    return bare_class(model_type) or UnknownClass(f"{version} has no class for the model_type {model_type!r}")


def named_class(config: Mapping[str, Any]) -> Any:
    """Return the first of `architectures` that is a model class of transformers, None if there is none."""
    import transformers

    for named in architectures(config):
        found: Any = getattr(transformers, named, None) or getattr(_modeling_module(config), named, None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    return None


def _modeling_module(config: Mapping[str, Any]) -> Any:
    """Return the module with the classes of a `model_type`, also those that transformers does not export; else None."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        return None
    name = CONFIG_MAPPING[model_type].__module__.replace(".configuration_", ".modeling_")
    return importlib.import_module(name) if importlib.util.find_spec(name) is not None else None


def bare_class(model_type: str) -> Any:
    """Return the class of transformers for a model without a head, None if there is none for this `model_type`."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    if model_type not in CONFIG_MAPPING or CONFIG_MAPPING[model_type] not in MODEL_MAPPING:
        return None
    found = MODEL_MAPPING[CONFIG_MAPPING[model_type]]
    return found[0] if isinstance(found, tuple) else found


def class_for_task(config: Mapping[str, Any], task_type: object) -> str | None:
    """Return the class of transformers for a kind of task of peft, None if there is none for this `model_type`.

    Args:
        config: the config of the model.
        task_type: the kind of task in the config of an adapter: SEQ_CLS, TOKEN_CLS or QUESTION_ANS.
    """
    from transformers.models.auto import modeling_auto

    kind = _PEFT_TASKS.get(task_type) if isinstance(task_type, str) else None
    found = (
        None
        if kind is None
        else getattr(modeling_auto, f"MODEL_FOR_{kind}_MAPPING_NAMES").get(config.get("model_type"))
    )
    return found if isinstance(found, str) else None


def structure_only(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without the keys that name code, kernels, dtypes or files elsewhere."""
    return _without(config, _NOT_STRUCTURE)


def without_code(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without the keys that name code, kernels or files elsewhere: what is left is loaded as it is."""
    return _without(config, _NOT_LOADED)


def _without(config: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {key: _value_without(value, keys) for key, value in config.items() if key not in keys}


def _value_without(value: Any, keys: Collection[str]) -> Any:
    if isinstance(value, list):
        return [_value_without(one, keys) for one in value]
    if not isinstance(value, Mapping):
        return value
    number = value.get(_FLOAT_KEY) if len(value) == 1 else None
    return float(number) if number in _FLOATS else _without(value, keys)


@contextmanager
def config_folder(config: Mapping[str, Any]) -> Iterator[str]:
    """Write a config.json into a temporary folder, for transformers to read it with its own loader, silently.

    The loader does more than to parse JSON: transformers 5 writes infinite numbers as `{"__float__": "Infinity"}`.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8", newline="\n")
        yield folder


@contextmanager
def _quiet() -> Iterator[None]:
    """Turn off the messages and progress bars of transformers."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def import_classes() -> None:
    """Import the lookup tables of transformers, which takes seconds.

    The import makes a million objects that stay. The garbage collector, which would search them again and again, is
    off meanwhile and skips them afterwards. scipy, of which losses of detectors call one function, is not loaded.
    """
    if _CLASSES in sys.modules:
        return
    collecting = gc.isenabled()
    gc.disable()
    try:
        with functions_at_first_call("scipy.optimize", "linear_sum_assignment"):
            importlib.import_module("transformers.modeling_utils")
            importlib.import_module(_CLASSES)
    finally:
        gc.freeze()
        if collecting:
            gc.enable()
