"""Parts of a model by tensor names: components (towers, heads, the body), layers, and globs for them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
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
_TOWERS = ("vision_model", "text_model", "audio_model")

_NUMBER = re.compile(r"(?<![^.])[0-9]+(?![^.])")


def component_of(name: str) -> str:
    """Return the component that a tensor belongs to.

    >>> component_of("vision_model.encoder.weight"), component_of("encoder.weight")
    ('vision_model', "the model's body")
    """
    top = name.split(".", 1)[0]
    return top if any(fnmatchcase(top, pattern) for pattern in _SEPARATE) else BODY


@dataclass(frozen=True)
class Parts:
    """Models inside of a model, such as the language model and the vision tower of a VLM.

    Attributes:
        models: the prefix of the names in files of each, and its `model_type`.
    """

    models: Mapping[str, str] = field(default_factory=dict)

    def component_of(self, name: str) -> str:
        """Return the component that a tensor belongs to: the innermost model inside, else that of `component_of`."""
        inside = [prefix for prefix in self.models if name.startswith(f"{prefix}.")]
        return max(inside, key=len, default=None) or component_of(name)

    def described(self, merged: Collection[str]) -> str | None:
        """Return which of the models inside are merged, and which are kept, in words; None if it is all or none.

        The towers of models such as CLIP do not count.
        """
        inner = {prefix: kind for prefix, kind in self.models.items() if prefix not in _TOWERS}
        found = {prefix for prefix in inner if any(name.startswith(f"{prefix}.") for name in merged)}
        if not found or len(found) == len(inner):
            return None
        own, kept = (
            ", ".join(f"{prefix}.* ({kind})" for prefix, kind in inner.items() if (prefix in found) is is_merged)
            for is_merged in (True, False)
        )
        return f"Merged part: {own}; kept from the base model: {kept}"


NO_PARTS = Parts()
"""A model without models inside."""


def pattern_for(name: str) -> str:
    """Return a glob for the top-level module of a tensor.

    >>> pattern_for("vision_model.encoder.weight")
    'vision_model.*'
    """
    top, dot, _ = name.partition(".")
    return f"{top}.*" if dot else name


def patterns_for(names: Collection[str], spared: Collection[str]) -> list[str]:
    """Return few globs that together match all of `names` and none of `spared`.

    For each name, of the globs that spare the others the one that matches most of `names` is taken: for a module around
    it, for the tensor in all layers, or its own name.

    >>> patterns_for(["head.weight", "layers.0.q.bias", "layers.1.q.bias"], ["layers.0.q.weight"])
    ['head.*', 'layers.*.q.bias']
    >>> patterns_for(["model.visual.0.bias", "model.visual.norm.bias"], ["model.norm.bias"])
    ['model.visual.*']
    """
    found: dict[str, None] = {}
    left = list(names)
    while left:
        valid = [glob for glob in _patterns(left[0]) if not any(fnmatchcase(one, glob) for one in spared)] or left[:1]
        glob = max(valid, key=lambda glob: sum(fnmatchcase(name, glob) for name in left))
        found[glob] = None
        left = [name for name in left[1:] if not fnmatchcase(name, glob)]
    return list(found)


def _patterns(name: str) -> Iterator[str]:
    """Yield globs that match a tensor, the plainest first."""
    modules = name.split(".")[:-1]
    yield from (pattern_for(name), name)
    yield from (f"{'.'.join(modules[:depth])}.*" for depth in range(2, len(modules) + 1))
    yield _NUMBER.sub("*", name)


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
