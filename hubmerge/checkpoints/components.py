"""The parts of a model that a checkpoint may lack as a whole: towers and heads, but never part of a body."""

from __future__ import annotations

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


def component_of(name: str) -> str:
    """The part a tensor belongs to: `vision_model.encoder.x` -> "vision_model", `encoder.x` -> "the model's body"."""
    top = name.split(".", 1)[0]
    return top if any(fnmatchcase(top, pattern) for pattern in _SEPARATE) else BODY


def pattern_for(name: str) -> str:
    """A glob for everything beside a tensor at the top: `vision_model.encoder.x` -> "vision_model.*"."""
    top, dot, _ = name.partition(".")
    return f"{top}.*" if dot else name
