"""Parts of a model by tensor names: components (towers, heads, the body), layers, and globs for them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase

# Top-level modules that a checkpoint may reasonably lack: a tower, a projection, a head.
# Any other top-level module (`embeddings`, `encoder`, `layers`, ...) belongs to the body, which must be complete.
_SEPARATE = (
    "*_model",
    "*_projection",
    "*head*",
    "classifier*",
    "cls",
    "score",
    "qa_outputs",
    "pooler",
    "logit_scale",
    "logit_bias",
)

BODY = "the model's body"

_NUMBER = re.compile(r"(?<![^.])[0-9]+(?![^.])")


def component_of(name: str) -> str:
    """Return the component that a tensor belongs to.

    >>> component_of("vision_model.encoder.weight"), component_of("encoder.weight")
    ('vision_model', "the model's body")
    """
    top = name.split(".", 1)[0]
    return top if any(fnmatchcase(top, pattern) for pattern in _SEPARATE) else BODY


def pattern_for(name: str) -> str:
    """Return a glob for the top-level module of a tensor.

    >>> pattern_for("vision_model.encoder.weight")
    'vision_model.*'
    """
    top, dot, _ = name.partition(".")
    return f"{top}.*" if dot else name


def patterns_for(names: Collection[str], spared: Collection[str]) -> list[str]:
    """Return few globs that together match all of `names` and none of `spared`.

    For each name, the widest of three globs that spares the others is taken: its top-level module, the tensor in all
    layers, its own name.

    >>> patterns_for(["head.weight", "layers.0.q.bias", "layers.1.q.bias"], ["layers.0.q.weight"])
    ['head.*', 'layers.*.q.bias']
    """
    takes_spared: dict[str, bool] = {}
    found: dict[str, None] = {}
    for name in names:
        for pattern in (pattern_for(name), _NUMBER.sub("*", name), name):
            if pattern not in takes_spared:
                takes_spared[pattern] = pattern != name and any(fnmatchcase(one, pattern) for one in spared)
            if not takes_spared[pattern]:
                found[pattern] = None
                break
    return list(found)


def layers_of(name: str) -> Iterator[str]:
    """Yield the numbered modules that contain a tensor, from the outermost.

    >>> list(layers_of("encoder.layers.3.experts.0.weight"))
    ['encoder.layers.3', 'encoder.layers.3.experts.0']
    """
    parts = name.split(".")
    for end, part in enumerate(parts[:-1], start=1):
        if part.isdecimal():
            yield ".".join(parts[:end])


def stack_of(layer: str) -> str:
    """Return the stack that a layer is in.

    >>> stack_of("encoder.layers.3")
    'encoder.layers'
    """
    return layer.rpartition(".")[0]
