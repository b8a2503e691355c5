"""Causes of mismatches that configs and names show, such as another vocabulary or another prefix of the names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.components import component_of, layers_of
from hubmerge.checkpoints.matching.names import Shapes
from hubmerge.support.text import listed

WIDTHS = ("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "hidden_dim", "hidden_sizes")
PARTS = ("intermediate_size", "d_ff", "num_attention_heads", "num_heads", "num_key_value_heads", "head_dim")
DEPTHS = ("num_hidden_layers", "num_layers", "n_layer", "depth", "depths", "encoder_layers", "decoder_layers")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
VOCABULARY = ("vocab_size",)
COMPUTATION = (
    *("num_attention_heads", "num_heads", "n_head", "num_key_value_heads", "head_dim", "patch_size", "window_size"),
    *("hidden_act", "hidden_activation", "activation_function", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"),
    *("rope_theta", "rope_type", "factor", "partial_rotary_factor", "sliding_window", "position_embedding_type"),
    *("num_experts_per_tok", "norm_topk_prob", "routed_scaling_factor", "query_pre_attn_scalar"),
    *("final_logit_softcapping", "attn_logit_softcapping", "logits_scaling", "embedding_multiplier"),
)
"""Settings on which the output of a model depends, and no shape of a tensor has to."""

_NESTED = ("_config", "rope_parameters", "rope_scaling")
_TYING = "tie_word_embeddings"
_ENOUGH = 0.9
"""Share of the unexpected tensors that another prefix has to explain."""


def different_settings(checkpoint: Checkpoint, base: Checkpoint, keys: Sequence[str]) -> str | None:
    """Return the settings of two configs that differ, in words; None if none of `keys` does.

    A setting may be in a nested config, such as the `text_config` of a VLM.
    """
    found = []
    for key in keys:
        own, expected = (list(dict.fromkeys(_values(one.config, key))) for one in (checkpoint, base))
        other = [value for value in own if value not in expected]
        if other and expected:
            found.append(f"{key} is {' and '.join(other)}, expected {' or '.join(expected)}")
    return "; ".join(found) or None


def computation_notes(base: Checkpoint, checkpoints: Iterable[Checkpoint]) -> list[str]:
    """Return a sentence on the settings of checkpoints under which the base model would compute something else.

    Only checkpoints of the base model's type, or of a model inside of it, are compared.
    """
    types = set(_values(base.config, "model_type"))
    labels: dict[str, list[str]] = {}
    for checkpoint in checkpoints:
        different = different_settings(checkpoint, base, COMPUTATION)
        if different is not None and checkpoint.config.get("model_type") in types:
            labels.setdefault(different, []).append(checkpoint.label)
    cause = "config.json has other settings than the base model's, which the merged model has"
    return [f"{listed(names, most=3)}: {cause}: {text}" for text, names in labels.items()]


def other_prefix(unexpected: Shapes, targets: Shapes) -> tuple[str, str] | None:
    """Return the prefix of the names in a checkpoint and the one in the base model, if nothing else differs.

    Args:
        unexpected: names and shapes of tensors that the base model does not have.
        targets: names and shapes of the base model's tensors.
    """
    for strip, add in _prefixes(next(iter(unexpected), ""), unexpected, targets):
        renamed = {f"{add}{name[len(strip) :]}": shape for name, shape in unexpected.items() if name.startswith(strip)}
        matched = sum(targets.get(name) == shape for name, shape in renamed.items())
        if matched > 1 and matched >= _ENOUGH * len(unexpected):
            return strip, add
    return None


def own_head(checkpoint: Checkpoint, base: Checkpoint, unexpected: Sequence[str]) -> bool:
    """Return True if all unexpected tensors are in a head that the base model's config ties to the embeddings."""
    tied = base.config.get(_TYING) is True and checkpoint.config.get(_TYING) is not True
    return tied and all("head" in component_of(name) for name in unexpected)


def inner_models(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the keys of a config that describe a model inside, such as `text_config` and `vision_config`."""
    own = checkpoint.config.items()
    return tuple(
        key for key, value in own if isinstance(value, Mapping) and key.endswith(_NESTED[0]) and "model_type" in value
    )


def missing_layers(missing: Sequence[str], present: Sequence[str]) -> str | None:
    """Return the layers of which a checkpoint has no tensor, in words; None if it has some of each."""
    known = {layer for name in present for layer in layers_of(name)}
    outermost = (next((layer for layer in layers_of(name) if layer not in known), None) for name in missing)
    layers = list(dict.fromkeys(layer for layer in outermost if layer is not None))
    return listed(layers, most=4) if layers else None


def _prefixes(name: str, unexpected: Shapes, targets: Shapes) -> Iterator[tuple[str, str]]:
    """Yield prefixes that could be exchanged so that one tensor is found among the targets."""
    parts = name.split(".")
    for cut in range(len(parts)):
        strip, rest = "".join(f"{part}." for part in parts[:cut]), ".".join(parts[cut:])
        for target, shape in targets.items():
            if shape == unexpected[name] and (target == rest or target.endswith(f".{rest}")):
                yield strip, target[: len(target) - len(rest)]


def _values(config: Mapping[str, Any], key: str) -> Iterator[str]:
    """Yield the values of a key in a config and in the configs inside of it."""
    for own, value in config.items():
        if own == key and not isinstance(value, Mapping) and value is not None:
            yield str(int(value) if isinstance(value, float) and value.is_integer() else value)
        elif isinstance(value, Mapping) and (str(own).endswith(_NESTED) or "model_type" in value):
            yield from _values(value, key)
