"""The parts of a model that a checkpoint may lack as a whole: towers and heads, but never part of a body."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase

# What stands at the top of a model and can be absent with sense: the text tower beside a vision tower, a head.
# Everything else at the top (`embeddings`, `encoder`, `layers`, ...) is the body, and a body is whole.
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
    """The part a tensor belongs to: `vision_model.encoder.x` -> "vision_model", `encoder.x` -> "the model's body"."""
    top = name.split(".", 1)[0]
    return top if any(fnmatchcase(top, pattern) for pattern in _SEPARATE) else BODY


def pattern_for(name: str) -> str:
    """A glob for everything beside a tensor at the top: `vision_model.encoder.x` -> "vision_model.*"."""
    top, dot, _ = name.partition(".")
    return f"{top}.*" if dot else name


def patterns_for(names: Collection[str], spared: Collection[str]) -> list[str]:
    """Few globs that together take all of `names` and none of `spared`: for whole parts or for all layers, if they can.

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


def layers_of(name: str) -> Iterator[tuple[str, str]]:
    """The stacks of layers that a tensor lies in, and its numbers there: `layers.3.q` -> ("layers", "3")."""
    parts = name.split(".")
    for index, part in enumerate(parts):
        if part.isdigit():
            yield ".".join(parts[:index]), part
