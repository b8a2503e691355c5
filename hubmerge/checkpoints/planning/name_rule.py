"""Weight matrices by name and shape, for tensors that no class of transformers has.

Words count where they stand: `shared` is an embedding as a module's own name outside of layers (`shared.weight`, as in
T5), not in `shared_experts.up_proj.weight`; `embed` makes `embed_tokens.weight` a table, but not
`time_embed.linear.weight`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hubmerge.checkpoints.matching.names import Shapes

DESCRIPTION = (
    "2-D tensors named `.weight` that are no embedding and no norm by their own name, joined projections of attention, "
    "and each matrix of 3-D experts"
)

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SHARED = "shared"
_OWN_NAMES = frozenset({"codebook", "relative_attention_bias"})
"""Names of modules that are lookup tables, as a whole."""

_EMBEDDINGS = frozenset({"emb", "embs", "embd", "embed", "embeds", "embedding", "embeddings", "wte", "wpe", "vocab"})
_LISTS = frozenset({"embs", "embeds", "embeddings", "tokens"})
"""Last words of lists of embeddings: `embed_tokens.0.weight` is a table, `time_embed.0.weight` a linear layer."""

_LINEAR = frozenset(
    {
        *("proj", "projs", "project", "projection", "projections", "projector", "linear", "dense", "fc", "mlp"),
        *("mapping", "transform", "transformation", "out", "head", "gate", "mixer", "mixing"),
    }
)
"""Words of linear layers, also beside a word for embeddings: `embeddings_project`, `embed_out`."""

_PATCHES = frozenset({"patch", "patches"})
_POSITIONS = frozenset({"pos", "position", "positions", "positional"})
"""Beside a word for embeddings: `patch_embedding` is a linear layer, `patch_position_embedding` a table."""

_NORMS = frozenset({"norm", "norms", "ln", "layernorm", "rmsnorm", "groupnorm", "batchnorm"})
_ATTENTION = frozenset({"in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"})
_NO_MATRICES = _POSITIONS | {"conv", "bias", "biases", "mask", "cls", "token", "tokens"}
"""Words of 3-D tensors that are no stack of matrices."""

_EXPERT_COUNT = re.compile(r"(?:^|_)experts$")


def matrices_by_name(shapes: Shapes, config: Mapping[str, Any]) -> set[str]:
    """Return the weight matrices among these tensors, by their names and shapes.

    Args:
        shapes: names and shapes of parameters.
        config: the content of config.json, from which the number of experts is known.
    """
    experts = set(_expert_counts(config))
    return {name for name, shape in shapes.items() if _looks_like_a_matrix(name, shape, experts)}


def is_lookup_table(name: str) -> bool:
    """Return True if a tensor is an embedding by the name of its own module.

    >>> [is_lookup_table(f"{name}.weight") for name in ("shared", "wte", "embed_tokens")]
    [True, True, True]
    >>> [is_lookup_table(f"{name}.weight") for name in ("shared_experts.up_proj", "embed_out", "time_embed.0")]
    [False, False, False]
    """
    own, parent = _module(name)
    words = _words(own)
    if own == _SHARED:
        return not any(part.isdecimal() for part in name.split("."))
    if own in _OWN_NAMES:
        return True
    if not words:  # a number in a list
        above = _words(parent)
        return bool(above) and above[-1] in _LISTS and _is_embedding(above)
    return _is_embedding(words)


def _is_embedding(words: list[str]) -> bool:
    if _LINEAR.intersection(words) or (_PATCHES.intersection(words) and not _POSITIONS.intersection(words)):
        return False
    return bool(_EMBEDDINGS.intersection(words)) or (len(words) > 1 and words[-1] in {"token", "tokens"})


def _looks_like_a_matrix(name: str, shape: tuple[int, ...], experts: set[int]) -> bool:
    last = name.rpartition(".")[2]
    if len(shape) == 3:
        return _is_stack(name, shape, experts)
    if len(shape) != 2:
        return False
    if last in _ATTENTION:
        return True
    return last == "weight" and not is_lookup_table(name) and not _is_norm(name)


def _is_stack(name: str, shape: tuple[int, ...], experts: set[int]) -> bool:
    """Return True if a 3-D tensor has the matrices of several experts: (experts, m, n)."""
    own, _ = _module(name)
    words = {word for part in (own, name.rpartition(".")[2]) for word in _words(part)}
    if words & (_NO_MATRICES | _NORMS) or is_lookup_table(name):
        return False
    if any("experts" in _words(part) for part in name.split(".")) or shape[0] in experts:
        return True
    # The kernel of a 1-D convolution has (outputs, inputs, width), a position table (1, positions, width).
    return 1 < shape[0] < min(shape[1:])


def _is_norm(name: str) -> bool:
    words = _words(_module(name)[0])
    return bool(_NORMS.intersection(words)) and not _LINEAR.intersection(words)


def _module(name: str) -> tuple[str, str]:
    """Return the own name of a tensor's module, and that of the module around it; of a free parameter, its own name."""
    parts = name.split(".")
    parts = parts[:-1] if parts[-1] in {"weight", "bias"} and len(parts) > 1 else parts
    return parts[-1], parts[-2] if len(parts) > 1 else ""


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def _expert_counts(config: Mapping[str, Any]) -> Iterator[int]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _expert_counts(value)
        elif isinstance(key, str) and _EXPERT_COUNT.search(key) and isinstance(value, int) and value > 1:
            yield value
