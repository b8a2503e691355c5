"""Classification heads: each row is for one class, and rows for different classes must not be merged."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.selection import Selection
from hubmerge.checkpoints.planning.matrices import MatrixRule, is_lookup_table
from hubmerge.errors import CheckpointError
from hubmerge.support.text import listed

HEADS = ("classifier", "classifier.*", "*_classifier.*", "score.*", "classification_head.*", "logits_proj.*")
# Start and end of an answer: equal in all models, though transformers counts them as classes.
_SAME_EVERYWHERE = ("qa_outputs.*", "*.qa_outputs.*")
_UNNAMED = re.compile(r"LABEL_\d+")
_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")


def check_heads(
    merged: Iterable[str], base: Checkpoint, checkpoints: Sequence[Checkpoint], rule: MatrixRule, selection: Selection
) -> None:
    """Check that no tensor to be merged is in a classification head, unless all models have the same classes.

    A head is every tensor that the model's class makes larger for more classes, or that has the name of a head. Of
    tensors that the class does not have, it is also one with as many rows as there are classes.

    The classes are those that config.json names (`id2label`). Default names (LABEL_0, LABEL_1, ...) do not count, nor
    does the config of an adapter's model for a head that the adapter saved. A recipe overrides the check if it
    includes "*", or includes a head by a glob that matches nothing else.

    Args:
        merged: the names of the tensors to be merged.
        base: the base model.
        checkpoints: the checkpoints under the base model's names.
        rule: the kinds of the base model's tensors.
        selection: the rule of the recipe.

    Raises:
        CheckpointError: a checkpoint's classes are unknown, or are not those of the base model.
    """
    expected = class_names(base.config)
    named = [class_names(checkpoint.config) for checkpoint in checkpoints]
    counts = {len(classes) for classes in (expected, *named) if classes is not None}
    heads = {name for name in base.tensors if _is_head(name, base, rule, counts)}
    body = [name for name in base.tensors if name not in heads]
    allowed = [glob for glob in selection.include if glob == "*" or not any(fnmatchcase(name, glob) for name in body)]
    for name in merged:
        if name not in heads or any(fnmatchcase(name, glob) for glob in allowed):
            continue
        for checkpoint, classes in zip(checkpoints, named, strict=True):
            if expected is None or classes != expected or checkpoint.tensors[name].saved_in_adapter:
                raise _other_classes(name, base, checkpoint, selection, _glob_for(name, body))


def _other_classes(
    name: str, base: Checkpoint, checkpoint: Checkpoint, selection: Selection, glob: str
) -> CheckpointError:
    """Return the error for a head whose classes are unknown or differ; `glob` matches the head."""
    in_adapter = checkpoint.tensors[name].saved_in_adapter
    found = "classes that an adapter does not name" if in_adapter else _described(checkpoint.config)
    merge = selection.including([*selection.include, glob] if selection.include else ["*"])
    return checkpoint.origin.error(
        f"{name!r} belongs to a classification head for {found}, but the head of the base model "
        f"{base.label} is for {_described(base.config)}",
        hint=f"keep the base model's head: {selection.excluding([glob])}; or, if both heads have the same classes in "
        f"the same order, merge it: {merge}",
        tensor=name,
    )


def class_names(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the classes that a config names, in order; None if it names none."""
    labels = config.get("id2label")
    if not isinstance(labels, Mapping) or not labels or not all(str(key).isdecimal() for key in labels):
        return None
    names = tuple(str(labels[key]) for key in sorted(labels, key=int))
    return None if all(_UNNAMED.fullmatch(name) for name in names) else names


def _is_head(name: str, base: Checkpoint, rule: MatrixRule, counts: Collection[int]) -> bool:
    plain = _WRAPPERS.sub("", name)
    if any(fnmatchcase(plain, glob) for glob in _SAME_EVERYWHERE):
        return False
    if name in rule.heads or any(fnmatchcase(plain, glob) for glob in HEADS):
        return True
    shape = base.tensors[name].shape
    return name in rule.unknown and not is_lookup_table(name) and bool(shape) and shape[0] in counts


def _glob_for(name: str, body: Collection[str]) -> str:
    """Return the widest glob for a module that contains this tensor and no tensor of the body."""
    parts = name.split(".")
    for depth in range(1, len(parts)):
        inside = ".".join(parts[:depth]) + "."
        if not any(other.startswith(inside) for other in body):
            return f"{inside}*"
    return name


def _described(config: Mapping[str, Any]) -> str:
    classes = class_names(config)
    if classes is not None:
        return listed(classes, most=4)
    labels = config.get("id2label")
    single = isinstance(labels, Mapping) and len(labels) == 1
    kind = "a quantity" if single or config.get("problem_type") == "regression" else "classes"
    return f"{kind} that its config.json does not name"
