"""Facts about the tensors of a model's class in transformers: names, shapes, kinds and ties.

The class is built on torch's meta device: without values, in no memory, with no code but transformers' own.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hubmerge.checkpoints.model_class.class_lookup import (
    UnknownClass,
    bare_class,
    config_folder,
    import_classes,
    named_class,
    structure_only,
)
from hubmerge.checkpoints.model_class.config_check import implausible_size
from hubmerge.support import memo

_KIND = "class"
TYING = "tie_word_embeddings"
"""Key of a config that ties the head to the embeddings."""

_ATTENTION_WEIGHTS = {"in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"}


@dataclass(frozen=True)
class ModelClass:
    """Facts about a class; names are those of a model in memory, which sometimes differ from those in files.

    Attributes:
        name: the class and the version of transformers.
        shapes: the shape of every parameter.
        matrices: weights of linear layers, also tied ones; a 3-D one has one matrix for each expert.
        transposed: the matrices that are stored as (inputs, outputs), or (experts, inputs, outputs).
        ties: tied parameters: alias to owner.
        own_names: names in files to names in memory, where the tensor is merely renamed.
        heads: parameters whose shape depends on the number of classes.
        buffers: registered floating-point buffers, and biases that the class does not train; True for those that are
            saved with the weights.
        reads_tying: True if the class computes its output otherwise where the config ties embeddings.
        converted: names in files of tensors of the class that are joined or split on load.
        ignored: regular expressions for names in files that the class ignores.
        models: models inside of the model, with a config of another type: path to `model_type`.
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    matrices: frozenset[str]
    transposed: frozenset[str]
    ties: Mapping[str, str]
    own_names: Mapping[str, str]
    heads: frozenset[str]
    buffers: Mapping[str, bool]
    reads_tying: bool
    converted: frozenset[str]
    ignored: tuple[str, ...]
    models: Mapping[str, str]


def find_model_class(config: Mapping[str, Any], names: Collection[str]) -> ModelClass | UnknownClass:
    """Return facts about the class that a config names, from the memo if an earlier run asked for them.

    Args:
        config: the content of config.json.
        names: the names of the tensors in the model's files.

    Returns:
        The facts, or the reason why transformers cannot build the class.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        return UnknownClass("the config names no model_type")
    problem = implausible_size(config, names)
    if problem is not None:
        return UnknownClass(problem)
    found: ModelClass | UnknownClass | None = known_class(config, names)
    if found is None:
        found = _ask(model_type, config, names)
        if isinstance(found, ModelClass):
            memo.put(_KIND, _question(config, names), found)
    return found


def known_class(config: Mapping[str, Any], names: Collection[str]) -> ModelClass | None:
    """Return what `find_model_class` found in an earlier run, None if it was not asked."""
    return memo.get(_KIND, _question(config, names), ModelClass)


def _question(config: Mapping[str, Any], names: Collection[str]) -> bytes:
    return json.dumps([structure_only(config), sorted(names)], sort_keys=True).encode()


def _ask(model_type: str, config: Mapping[str, Any], names: Collection[str]) -> ModelClass | UnknownClass:
    import_classes()
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    version = f"transformers {transformers.__version__}"
    if model_type not in CONFIG_MAPPING:
        return UnknownClass(f"{version} has no class for the model_type {model_type!r}")
    try:
        with config_folder(structure_only(config)) as folder:
            model_config = CONFIG_MAPPING[model_type].from_pretrained(folder, local_files_only=True)
        found = named_class(config) or bare_class(model_type)
        if found is None:
            return UnknownClass(f"{version} has no class for the model_type {model_type!r}")
        model = build(found, model_config)
        own_names, converted = _own_names(model, names)
    except Exception as error:  # a config is free text: the errors of a class have no common type
        return UnknownClass(f"{version} cannot build {model_type!r} from its config: {type(error).__name__}")
    shapes, matrices, transposed = layers(model)
    return ModelClass(
        name=f"{found.__name__} in {version}",
        shapes=shapes,
        matrices=frozenset(matrices),
        transposed=frozenset(transposed),
        ties=dict(getattr(model, "all_tied_weights_keys", {})),
        own_names=own_names,
        heads=_heads(found, model_config, shapes),
        buffers=_buffers(model),
        reads_tying=any(map(_reads_tying, {type(module) for module in model.modules()})),
        converted=converted,
        ignored=tuple(sorted(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())),
        models=dict(_models(model)),
    )


def build(found: Any, config: Any) -> Any:
    """Return a model of a class without values, for a config of transformers."""
    with torch.device("meta"):
        return found._from_config(config, attn_implementation="eager")


def _reads_tying(module: type[torch.nn.Module]) -> bool:
    """Return True if the module's output depends on `tie_word_embeddings` of the config, as in Switch Transformers."""
    code = getattr(inspect.unwrap(module.forward), "__code__", None)
    return code is not None and TYING in code.co_names


def _models(model: Any) -> Iterator[tuple[str, str]]:
    """Yield path and `model_type` of each model inside of a model that has a config of another type."""
    from transformers import PreTrainedModel

    kinds: dict[str, type] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if not isinstance(module, PreTrainedModel):
            continue
        around = [kind for outer, kind in kinds.items() if not outer or path.startswith(f"{outer}.")]
        kinds[path] = type(module.config)
        if around and type(module.config) is not around[-1]:
            yield path, str(getattr(module.config, "model_type", ""))


def _buffers(model: torch.nn.Module) -> dict[str, bool]:
    """Return the registered floating-point buffers; True for those that are saved with the weights.

    Some classes have the bias that balances experts as a parameter without a gradient instead.
    """
    saved = model.state_dict(keep_vars=True).keys()
    found = {
        name: name in saved
        for name, buffer in model.named_buffers(remove_duplicate=False)
        if buffer.dtype.is_floating_point
    }
    for path, module in model.named_modules(remove_duplicate=False):
        for own_name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if own_name.endswith("_bias") and not parameter.requires_grad:
                found[f"{path}.{own_name}" if path else own_name] = True
    return found


def _heads(found: Any, config: Any, shapes: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    """Return the parameters with another shape in a model with one more class; none if it cannot be built."""
    try:
        more = copy.deepcopy(config)
        more.num_labels = config.num_labels + 1
        model = build(found, more)
    except Exception:  # a class may refuse a number of classes that its config does not name, with any error
        return frozenset()
    parameters = model.named_parameters(remove_duplicate=False)
    return frozenset(name for name, found in parameters if shapes.get(name) != tuple(found.shape))


def layers(model: torch.nn.Module) -> tuple[dict[str, tuple[int, ...]], set[str], set[str]]:
    """Return the shapes of all parameters, the names of weight matrices, and those that are stored transposed."""
    shapes: dict[str, tuple[int, ...]] = {}
    matrices: set[str] = set()
    transposed: set[str] = set()
    for prefix, module in model.named_modules(remove_duplicate=False):
        for own_name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            name = f"{prefix}.{own_name}" if prefix else own_name
            shapes[name] = tuple(parameter.shape)
            if _is_matrix(module, own_name, parameter.dim()):
                matrices.add(name)
                if _stores_transposed(module):
                    transposed.add(name)
    return shapes, matrices, transposed


def _stores_transposed(module: torch.nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D

    # Modules of joined experts say it themselves; those of Llama 4 do not.
    named = type(module).__name__ == "Llama4TextExperts"
    return isinstance(module, Conv1D) or named or getattr(module, "is_transposed", False) is True


def _is_matrix(module: torch.nn.Module, own_name: str, dimensions: int) -> bool:
    from transformers.pytorch_utils import Conv1D

    # In transformers, routers and joined experts are bare parameters of modules with these names.
    kind = type(module).__name__
    if dimensions == 3:
        return kind.endswith("Experts")
    linear = isinstance(module, (torch.nn.Linear, Conv1D)) or kind.endswith("Router")
    joined = isinstance(module, torch.nn.MultiheadAttention) and own_name in _ATTENTION_WEIGHTS
    return dimensions == 2 and (joined or (linear and own_name == "weight"))


def _own_names(model: Any, names: Collection[str]) -> tuple[dict[str, str], frozenset[str]]:
    """Return the names in memory of tensors in files that are only renamed on load, and those that are converted."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    transforms = get_model_conversion_mapping(model)
    renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    found = {name: rename_source_key(name, renamings, converters) for name in names}
    # A converter joins or splits tensors: the result has another shape, so it is no mere renaming.
    renamed = {name: own for name, (own, converter) in found.items() if converter is None}
    own_names, prefix = model.state_dict(keep_vars=True).keys(), model.base_model_prefix
    known = {*own_names, *(f"{prefix}.{name}" for name in own_names)}
    known |= {name.removeprefix(f"{prefix}.") for name in own_names}
    return renamed, frozenset(name for name, (own, converter) in found.items() if converter and own in known)
