"""What a model's class in transformers says of its tensors, without values: names, shapes, kinds, ties.

The class is built on torch's meta device: no values, no memory, no code but transformers' own.
"""

from __future__ import annotations

import copy
import gc
import importlib
import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hubmerge.checkpoints.model_class.claims import check_config
from hubmerge.errors import CheckpointError
from hubmerge.support import memo

_CLASSES = "transformers.models.auto.modeling_auto"
_KIND = "class"

_ATTENTION_WEIGHTS = {"in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"}

# Keys of a config that name code, kernels or files elsewhere; none is needed to know the layers.
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
class ModelClass:
    """What the class says. Names are those of a model in memory, which differ from those in files at times.

    `matrices` are weights of linear layers, 3-D ones of one matrix for each expert among them; `transposed` are
    those that are stored as (inputs, outputs). `ties` maps a name to the one it shares its values with.
    `own_names` maps names in files to those in memory, as far as it is a mere renaming. `heads` are those whose shape
    depends on the number of classes.
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    matrices: frozenset[str]
    transposed: frozenset[str]
    ties: Mapping[str, str]
    own_names: Mapping[str, str]
    heads: frozenset[str]


def model_class(config: Mapping[str, Any], names: Collection[str]) -> ModelClass:
    """What the class named by a config says; `names` are those in files. Raises CheckpointError if there is none.

    What it said in an earlier run is taken from there.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise CheckpointError("the config names no model_type")
    check_config(config, names, model_type)
    known = known_class(config, names)
    if known is None:
        known = _ask(model_type, config, names)
        memo.put(_KIND, _question(config, names), known)
    return known


def known_class(config: Mapping[str, Any], names: Collection[str]) -> ModelClass | None:
    """What `model_class` said in an earlier run, None if it has not been asked."""
    return memo.get(_KIND, _question(config, names), ModelClass)


def _question(config: Mapping[str, Any], names: Collection[str]) -> bytes:
    return json.dumps([structure_only(config), sorted(names)], sort_keys=True).encode()


def _ask(model_type: str, config: Mapping[str, Any], names: Collection[str]) -> ModelClass:
    import_classes()
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    try:
        model_config = CONFIG_MAPPING[model_type].from_dict(structure_only(config))
        named = next(iter(config.get("architectures") or []), None)
        found: Any = getattr(transformers, named, None) if isinstance(named, str) else None
        if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
            found = MODEL_MAPPING[type(model_config)]
        model = _built(found, model_config)
        own_names = _own_names(model, names)
    except Exception as error:
        # A config is free text: what a class makes of a wrong one has no common type.
        raise CheckpointError(
            f"transformers {transformers.__version__} cannot build {model_type!r} from its config: "
            f"{type(error).__name__}"
        ) from error
    shapes, matrices, transposed = layers(model)
    ties = dict(getattr(model, "all_tied_weights_keys", {}))
    for alias, owner in ties.items():
        if not {alias, owner} <= matrices:
            matrices -= {alias, owner}
    name = f"{found.__name__} in transformers {transformers.__version__}"
    heads = _heads(found, model_config, shapes)
    return ModelClass(name, shapes, frozenset(matrices), frozenset(transposed), ties, own_names, heads)


def _built(found: Any, config: Any) -> Any:
    with torch.device("meta"):
        return found._from_config(config, attn_implementation="eager")


def _heads(found: Any, config: Any, shapes: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    """The parameters that are of another shape in a model for one more class; none if there is no such model."""
    try:
        more = copy.deepcopy(config)
        more.num_labels = config.num_labels + 1
        model = _built(found, more)
    except Exception:
        # What a class makes of a number of classes that its config did not name has no common type either.
        return frozenset()
    parameters = model.named_parameters(remove_duplicate=False)
    return frozenset(name for name, found in parameters if shapes.get(name) != tuple(found.shape))


def import_classes() -> None:
    """Import what knows the classes: late, for it takes seconds, and those who only read tensors need none of it.

    It makes a million objects that stay. The collector, which would look through them again and again, waits, and
    leaves them out from then on.
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


def layers(model: torch.nn.Module) -> tuple[dict[str, tuple[int, ...]], set[str], set[str]]:
    """Shapes of all parameters by name; the names of weight matrices; those of them that are stored transposed."""
    from transformers.pytorch_utils import Conv1D

    shapes: dict[str, tuple[int, ...]] = {}
    matrices: set[str] = set()
    transposed: set[str] = set()
    for prefix, module in model.named_modules(remove_duplicate=False):
        for own_name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            name = f"{prefix}.{own_name}" if prefix else own_name
            shapes[name] = tuple(parameter.shape)
            if _is_matrix(module, own_name, parameter.dim()):
                matrices.add(name)
                if isinstance(module, Conv1D):
                    transposed.add(name)
    return shapes, matrices, transposed


def _is_matrix(module: torch.nn.Module, own_name: str, dimensions: int) -> bool:
    from transformers.pytorch_utils import Conv1D

    # transformers keeps routers and fused experts as bare parameters of modules so called.
    kind = type(module).__name__
    if dimensions == 3:
        return kind.endswith("Experts")
    linear = isinstance(module, (torch.nn.Linear, Conv1D)) or kind.endswith("Router")
    joined = isinstance(module, torch.nn.MultiheadAttention) and own_name in _ATTENTION_WEIGHTS
    return dimensions == 2 and (joined or (linear and own_name == "weight"))


def _own_names(model: Any, names: Collection[str]) -> dict[str, str]:
    """What transformers calls the tensors of a file once they are loaded, where it is a mere renaming."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    transforms = get_model_conversion_mapping(model)
    renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    found = {name: rename_source_key(name, renamings, converters) for name in names}
    # A converter joins or splits tensors: what it makes is of another shape and says nothing of its parts.
    return {name: own for name, (own, converter) in found.items() if converter is None}


def structure_only(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the keys that name code, kernels, dtypes or files elsewhere."""
    return {
        key: structure_only(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in _NOT_STRUCTURE
    }
