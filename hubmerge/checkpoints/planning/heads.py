"""Classification heads: their rows are classes, and rows of different classes must never be added up in silence."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.selection import Selection
from hubmerge.checkpoints.planning.matrices import MatrixRule, is_lookup_table
from hubmerge.errors import CheckpointError

HEADS = ("classifier", "classifier.*", "*_classifier.*", "score.*", "classification_head.*", "logits_proj.*")
# Start and end of an answer: the same two everywhere, though transformers counts them as classes.
_SAME_EVERYWHERE = ("qa_outputs.*", "*.qa_outputs.*")
_UNNAMED = re.compile(r"LABEL_\d+")
_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")


def check_heads(
    merged: Iterable[str], base: Checkpoint, checkpoints: Sequence[Checkpoint], rule: MatrixRule, selection: Selection
) -> None:
    """Check that the tensors to be `merged` are in no classification head, or in one of the same classes everywhere.

    A head is what the model's class makes larger for more classes, or what is called so; of tensors that no class
    knows also one that has as many rows as there are classes. The classes are those that each config.json names
    (`id2label`); the default names LABEL_0, LABEL_1, ... tell nothing, nor does the config of an adapter's model tell
    what a head is for that the adapter saved along. A recipe decides for itself if it includes "*", or includes a head
    by a glob that takes nothing else.

    Raises CheckpointError naming the checkpoint whose classes are not those of the base model.
    """
    wanted = class_names(base.config)
    named = [class_names(checkpoint.config) for checkpoint in checkpoints]
    counts = {len(classes) for classes in (wanted, *named) if classes is not None}
    heads = {name for name in base.tensors if _is_head(name, base, rule, counts)}
    body = [name for name in base.tensors if name not in heads]
    decided = [glob for glob in selection.include if glob == "*" or not any(fnmatchcase(name, glob) for name in body)]
    for name in merged:
        if name not in heads or any(fnmatchcase(name, glob) for glob in decided):
            continue
        for checkpoint, classes in zip(checkpoints, named, strict=True):
            saved_in_adapter = checkpoint.tensors[name].saved_in_adapter
            if wanted is None or classes != wanted or saved_in_adapter:
                glob = _glob_for(name, body)
                merging = selection.including([*selection.include, glob] if selection.include else ["*"])
                found = "classes that an adapter does not name" if saved_in_adapter else _described(checkpoint.config)
                raise CheckpointError(
                    f"{checkpoint.label}: {name!r} is in a classification head for {found}, that of the base "
                    f"model {base.label} is for {_described(base.config)}",
                    hint=f"keep the base model's head: {selection.excluding([glob])}; if both stand for the same, in "
                    f"the same order, merge it: {merging}",
                )


def class_names(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The classes that a config names, in order; None if it names none."""
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
    """The widest glob for a part of the model that holds this tensor and nothing of the body."""
    parts = name.split(".")
    for depth in range(1, len(parts)):
        inside = ".".join(parts[:depth]) + "."
        if not any(other.startswith(inside) for other in body):
            return f"{inside}*"
    return name


def _described(config: Mapping[str, Any]) -> str:
    classes = class_names(config)
    if classes is None:
        labels = config.get("id2label")
        single = isinstance(labels, Mapping) and len(labels) == 1
        kind = "a quantity" if single or config.get("problem_type") == "regression" else "classes"
        return f"{kind} that its config.json does not name"
    return ", ".join(classes[:4]) + (f" and {len(classes) - 4} more" if len(classes) > 4 else "")
