"""Which tensors are weight matrices: the 2-D weights of linear layers, as the model's own class says.

The class is built on torch's meta device: no values, no memory, no code but transformers' own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hubmerge.checkpoints.names import match_names, parameter_shapes
from hubmerge.checkpoints.tensors import TensorInfo
from hubmerge.errors import CheckpointError

_ATTENTION_WEIGHTS = {"in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"}
_LOOKUP_TABLES = ("embed", "wte", "wpe", "shared", "relative_attention_bias")
_BY_NAME = "2-D, named `.weight`, and not an embedding by its name"

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
_DEPTHS = {"num_hidden_layers", "num_layers", "num_decoder_layers", "n_layer", "n_layers", "encoder_layers"}


@dataclass(frozen=True)
class MatrixRule:
    """The names that are weight matrices, and a sentence that tells how that was decided.

    `ties` maps a name to the one it shares its values with, as far as the model's class says so.
    """

    matrices: frozenset[str]
    sentence: str
    ties: Mapping[str, str]

    def is_matrix(self, name: str) -> bool:
        """Whether the tensor is the 2-D weight of a linear layer."""
        return name in self.matrices


@dataclass(frozen=True)
class _ClassFacts:
    """What a model's class says; `own_names` maps names in files to those in the model, where they differ."""

    name: str
    shapes: dict[str, tuple[int, ...]]
    matrices: set[str]
    ties: dict[str, str]
    own_names: dict[str, str]


def weight_matrices(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> MatrixRule:
    """Decide for each of the base model's tensors, from its config and the tensors' names and shapes.

    Weights of `Linear` and of GPT-2's `Conv1D`, and the joined projections of `MultiheadAttention`, are
    matrices; embeddings (and whatever is tied to one), convolutions, norms, biases and free parameters are
    not. What no class in transformers knows is decided by shape and name, and the sentence says so.
    """
    shapes = parameter_shapes(tensors)
    by_name = {name for name, shape in shapes.items() if _looks_like_a_matrix(name, shape)}
    try:
        facts = _facts(config, shapes)
        in_model = {facts.own_names.get(name, name): name for name in shapes}
        renaming = match_names(facts.shapes, {own: shapes[name] for own, name in in_model.items()}, facts.name)
    except CheckpointError as error:
        return MatrixRule(frozenset(by_name), f"Weight matrices: {_BY_NAME} ({error.message}).", {})

    def in_file(name: str) -> str | None:
        target = renaming.target(name, in_model)
        return None if target is None else in_model[target]

    decided = {name for own in facts.shapes if (name := in_file(own)) is not None}
    matrices = {name for own in facts.matrices if (name := in_file(own)) is not None and len(shapes[name]) == 2}
    undecided = set(shapes) - decided
    sentence = f"Weight matrices: the linear layers of {facts.name}"
    if undecided:
        sentence += f"; for {len(undecided)} of {len(shapes)} tensors, unknown to it: {_BY_NAME}"
    ties = {
        in_file(alias) or next(renaming.candidates(alias)): in_file(owner) or next(renaming.candidates(owner))
        for alias, owner in facts.ties.items()
    }
    return MatrixRule(frozenset(matrices | (undecided & by_name)), sentence + ".", ties)


def _looks_like_a_matrix(name: str, shape: tuple[int, ...]) -> bool:
    table = any(word in part for part in name.lower().split(".") for word in _LOOKUP_TABLES)
    return len(shape) == 2 and name.endswith(".weight") and not table


def _facts(config: Mapping[str, Any], names: Collection[str]) -> _ClassFacts:
    """What the class named by a config says. Raises CheckpointError with a short reason if there is none."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise CheckpointError("the config names no model_type")
    depth = max(_depths(config), default=0)
    if depth > len(names):
        raise CheckpointError(f"the config claims {depth} layers for {len(names)} tensors")
    # Imported late: it takes seconds, and those who only read tensors need none of it.
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    try:
        model_config = CONFIG_MAPPING[model_type].from_dict(_structure_only(config))
        named = next(iter(config.get("architectures") or []), None)
        model_class: Any = getattr(transformers, named, None) if isinstance(named, str) else None
        if not (isinstance(model_class, type) and issubclass(model_class, transformers.PreTrainedModel)):
            model_class = MODEL_MAPPING[type(model_config)]
        with torch.device("meta"):
            model = model_class._from_config(model_config, attn_implementation="eager")
        own_names = _own_names(model, names)
    except Exception as error:
        # A config is free text: what a class makes of a wrong one has no common type.
        raise CheckpointError(
            f"transformers {transformers.__version__} cannot build {model_type!r} from its config: "
            f"{type(error).__name__}"
        ) from error
    shapes, matrices = _layers(model)
    ties = dict(getattr(model, "all_tied_weights_keys", {}))
    for alias, owner in ties.items():
        if not {alias, owner} <= matrices:
            matrices -= {alias, owner}
    name = f"{model_class.__name__} in transformers {transformers.__version__}"
    return _ClassFacts(name, shapes, matrices, ties, own_names)


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


def _layers(model: torch.nn.Module) -> tuple[dict[str, tuple[int, ...]], set[str]]:
    from transformers.pytorch_utils import Conv1D

    shapes: dict[str, tuple[int, ...]] = {}
    matrices: set[str] = set()
    for prefix, module in model.named_modules(remove_duplicate=False):
        for own_name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            name = f"{prefix}.{own_name}" if prefix else own_name
            shapes[name] = tuple(parameter.shape)
            linear = isinstance(module, (torch.nn.Linear, Conv1D)) and own_name == "weight"
            joined = isinstance(module, torch.nn.MultiheadAttention) and own_name in _ATTENTION_WEIGHTS
            if parameter.dim() == 2 and (linear or joined):
                matrices.add(name)
    return shapes, matrices


def _structure_only(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _structure_only(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in _NOT_STRUCTURE
    }


def _depths(config: Mapping[str, Any]) -> Iterator[int]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _depths(value)
        elif key in _DEPTHS and isinstance(value, int):
            yield value
