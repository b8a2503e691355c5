"""What the config of a model says about single layers: their kinds, their numbers, and counts of leading layers."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubmerge.checkpoints.model_class.class_lookup import config_folder, import_classes, without_code
from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.stacking.stacks import Stack
from hubmerge.support.text import listed

_PER_LAYER = re.compile(
    r"layer|block|pattern|per_|_types$|^intermediate_size$|^num_\w*heads$|multipliers$|^sliding_window$"
)
_NUMBERS = re.compile(
    r"(?:_idxs|_indices|_index|_indexes|_ids)$|^(?:moe_layers|mlp_only_layers|cross_attention_layers)$|^global_\w*layers$"
)
_NO_LAYERS = re.compile(r"token|^rope|_rope_(?:theta|scaling)|^architectures$|^_|label|mtp")
_LEADING = ("first_k_dense_replace", "num_dense_layers", "n_dense_layers")
"""Keys with the number of leading layers that are dense, where the others have experts."""

_TRAILING = ("num_kv_shared_layers",)
"""Keys with the number of last layers that use keys and values of earlier ones."""

_SPARSE_STEP = "decoder_sparse_step"
_DENSE_LAYERS = "mlp_only_layers"

Values = Mapping[str, "tuple[Any, ...]"]


@dataclass(frozen=True)
class LayerFacts:
    """Values of the layers of one stack.

    Attributes:
        values: keys that have one value for each layer, from the config or computed by its class.
        numbers: keys that have the numbers of some layers: True for these.
        leading: keys with a number of leading or last layers: True for these.
        by_class: True if the class of the config could read it.
    """

    values: Values
    numbers: Values
    leading: Values
    by_class: bool


def layer_facts(config: Mapping[str, Any], stack: Stack) -> LayerFacts:
    """Return what a config, as its class in transformers reads it, says about the layers of a stack."""
    layers = range(stack.layers)
    values: dict[str, tuple[Any, ...]] = {}
    numbers: dict[str, tuple[Any, ...]] = {}
    leading: dict[str, tuple[Any, ...]] = {}
    read = _read(config)
    for key, value in _attributes(config, read, stack.path).items():
        if key in _LEADING and type(value) is int:
            leading[key] = tuple(layer < value for layer in layers)
        elif key in _TRAILING and type(value) is int:
            leading[key] = tuple(layer >= stack.layers - value for layer in layers)
        elif isinstance(value, list) and not _NO_LAYERS.search(key):
            if _NUMBERS.search(key) and _are_numbers(value, stack.layers):
                numbers[key] = tuple(layer in value for layer in layers)
            elif len(value) == stack.layers and _PER_LAYER.search(key) and not any(map(_is_nested, value)):
                values[key] = tuple(value)
    sparse = _sparse(config, stack)
    return LayerFacts(
        values, {**numbers, **({_DENSE_LAYERS: sparse} if sparse is not None else {})}, leading, read is not None
    )


def _sparse(config: Mapping[str, Any], stack: Stack) -> tuple[bool, ...] | None:
    """Return which layers are dense where others have experts, by the two keys of Qwen; None without them."""
    place = nested(config, stack.path)
    step, dense = place.get(_SPARSE_STEP, 1), place.get(_DENSE_LAYERS) or []
    if type(step) is not int or step < 1 or not isinstance(dense, list) or (step == 1 and not dense):
        return None
    return tuple(layer in dense or (layer + 1) % step != 0 for layer in range(stack.layers))


def _is_nested(value: Any) -> bool:
    return isinstance(value, list | dict)


def _are_numbers(values: Sequence[Any], layers: int) -> bool:
    increasing = all(type(one) is int for one in values) and list(values) == sorted(set(values))
    return increasing and all(0 <= one < layers for one in values)


def nested(config: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    """Return a config inside of a config."""
    for key in path:
        config = config[key]
    return config


def _attributes(config: Mapping[str, Any], read: Any, path: tuple[str, ...]) -> dict[str, Any]:
    """Return keys and values of a config, and those that its class computes, which has `read` it."""
    found = dict(nested(config, path))
    for key in path:
        read = getattr(read, key, None)
    if read is None:
        return found
    found |= {key: value for key, value in read.to_dict().items() if value is not None}
    for key in dir(type(read)):
        if _PER_LAYER.search(key) and isinstance(getattr(type(read), key), property):
            value = getattr(read, key, None)
            found |= {key: value} if isinstance(value, list) else {}
    return found


def _read(config: Mapping[str, Any]) -> Any:
    """Return the config as its class in transformers reads it, None if there is no class or it refuses the config."""
    import_classes()
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        return None
    try:
        with config_folder(without_code(config)) as folder:
            return CONFIG_MAPPING[kind].from_pretrained(folder, local_files_only=True)
    except Exception:  # a config is free text: the errors of a class have no common type
        return None


@dataclass(frozen=True)
class LayerOrigin:
    """The layer of a source that becomes a layer of the stacked model: config, stack, number."""

    config: int
    layer: int


def stacked_config(
    config: Mapping[str, Any],
    stack: Stack,
    facts: Mapping[int, LayerFacts],
    layers: Sequence[LayerOrigin],
    place: Origin,
) -> dict[str, Any]:
    """Return a config for other layers in one of its stacks.

    Args:
        config: the config of the model that lends it.
        stack: its stack of layers.
        facts: what the configs of the sources say about their layers.
        layers: the origin of each layer of the stacked model.
        place: the place of the config, for messages.

    Raises:
        CheckpointError: the class computes the kind of a layer from its number, and a layer would be of another kind.
    """
    changed = copy.deepcopy(dict(config))
    inner: Any = nested(changed, stack.path)
    inner.update(dict.fromkeys(stack.keys, len(layers)))
    wanted = {kind: _of_layers(kind, facts, layers) for kind in ("values", "numbers", "leading")}
    for key, flags in wanted["leading"].items():
        count = sum(flags)
        first = [layer < count for layer in range(len(layers))]
        if list(flags) != (first[::-1] if key in _TRAILING else first):
            found = listed([str(layer) for layer, flag in enumerate(flags) if flag])
            which = "last layers" if key in _TRAILING else "first layers"
            raise _fixed(place, key, f"only the {which} can be of this kind, here it would be {found}")
        inner[key] = count
    for key, flags in wanted["numbers"].items():
        inner[key] = [layer for layer, flag in enumerate(flags) if flag]
        if key == _DENSE_LAYERS and _SPARSE_STEP in inner:
            inner[_SPARSE_STEP] = 1
    inner.update({key: list(values) for key, values in wanted["values"].items() if key in inner})
    _set_computed(changed, inner, replace_layers(stack, len(layers)), wanted, place)
    return changed


def replace_layers(stack: Stack, layers: int) -> Stack:
    """Return a stack with another number of layers."""
    return Stack(stack.prefix, layers, stack.path, stack.keys)


def differing_kinds(
    facts: Mapping[int, LayerFacts], layers: Sequence[LayerOrigin], others: Sequence[LayerOrigin]
) -> list[str]:
    """Return the keys in which layers that are merged with each other have different values."""
    return [
        key
        for kind in ("values", "numbers", "leading")
        for key, values in _of_layers(kind, facts, layers).items()
        if _of_layers(kind, facts, others).get(key, values) != values
    ]


def _of_layers(kind: str, facts: Mapping[int, LayerFacts], layers: Sequence[LayerOrigin]) -> dict[str, tuple[Any, ...]]:
    """Return the values of the stacked layers, for the keys that all sources have."""
    tables: dict[int, Values] = {number: getattr(one, kind) for number, one in facts.items()}
    used = dict.fromkeys(layer.config for layer in layers)
    keys = [key for key in tables[next(iter(used))] if all(key in tables[number] for number in used)]
    return {key: tuple(tables[one.config][key][one.layer] for one in layers) for key in keys}


def _set_computed(
    config: dict[str, Any], inner: Any, stack: Stack, wanted: Mapping[str, Values], place: Origin
) -> None:
    """Write the values that the class would compute otherwise, and check that it reads them."""
    written: list[str] = []
    by_class = layer_facts(config, stack).by_class
    while True:
        found = layer_facts(config, stack)
        key, values = next(_differing(found, wanted), ("", ()))
        if written and (key in written or found.by_class != by_class):
            shown = listed([str(value) for value in wanted["values"].get(written[-1], values)])
            reason = f"its class computes them from the numbers of the layers, expected {shown}"
            raise _fixed(place, written[-1], reason)
        if not key:
            return
        written.append(key)
        if key == "attention_layers" and "attention_types" in inner:
            inner["attention_types"] = [[list(values), 1]]
        else:
            inner[key] = list(values)


def _differing(found: LayerFacts, wanted: Mapping[str, Values]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for key, values in wanted["values"].items():
        if found.values.get(key, values) != values:
            yield key, values
    for key, flags in wanted["numbers"].items():
        if key != _DENSE_LAYERS and found.numbers.get(key, flags) != flags:
            yield key, tuple(layer for layer, flag in enumerate(flags) if flag)


def _fixed(place: Origin, key: str, reason: str) -> Exception:
    return place.in_file("config.json").error(
        f"the layers cannot be stacked in this order: {key}: {reason}",
        hint="choose layer ranges in which the kinds of the layers repeat as in the model",
    )
