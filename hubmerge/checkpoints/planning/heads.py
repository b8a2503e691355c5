"""Classification heads: each row is for one class, and rows for different classes must not be merged."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.selection import Selection
from hubmerge.checkpoints.planning.class_names import class_count, distinct_class_names, head_modules
from hubmerge.checkpoints.planning.matrices import MatrixRule
from hubmerge.checkpoints.planning.name_rule import is_lookup_table
from hubmerge.errors import CheckpointError
from hubmerge.support.text import counted, listed

UNKNOWN_HEADS = ("head.*", "head_dist.*", "fc.*", "last_linear.*", "classif.*", "output_layer.*")
"""Names of heads in models that transformers does not know, if their configs do not say how many classes they have."""

HEADS = ("classifier", "classifier.*", "*_classifier.*", "score.*", "classification_head.*", "logits_proj.*")
# Start and end of an answer, next sentence or not: equal in all models, though transformers counts some as classes.
_SAME_EVERYWHERE = ("qa_outputs.*", "*.qa_outputs.*", "seq_relationship.*", "*.seq_relationship.*")
_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.|timm_model\.)+")


def check_heads(
    merged: Iterable[str], base: Checkpoint, checkpoints: Sequence[Checkpoint], rule: MatrixRule, selection: Selection
) -> None:
    """Check that no tensor to be merged is in a classification head, unless all models have the same classes.

    A head is every tensor that the model's class makes larger for more classes, or that has the name of a head. Of
    tensors that the class does not have, it is also one of the modules that timm's config names (`classifier`), or
    else one with as many rows as there are classes.

    The classes are those that config.json names (`id2label`, `label_names`). Names that only count (LABEL_0, LABEL_1,
    ... or 0, 1, ...) do not count, nor does the config of an adapter's model for a head that the adapter saved. A
    recipe overrides the check if it includes "*", or includes a head by a glob that matches nothing else.

    Args:
        merged: the names of the tensors to be merged.
        base: the base model.
        checkpoints: the checkpoints under the base model's names.
        rule: the kinds of the base model's tensors.
        selection: the rule of the recipe.

    Raises:
        CheckpointError: a checkpoint's classes are unknown, or are not those of the base model.
    """
    expected = distinct_class_names(base.config)
    named = [distinct_class_names(checkpoint.config) for checkpoint in checkpoints]
    known = _Known.of([base, *checkpoints])
    heads = {name for name in base.tensors if _is_head(name, base, rule, known)}
    body = [name for name in base.tensors if name not in heads]
    allowed = [glob for glob in selection.include if glob == "*" or not any(fnmatchcase(name, glob) for name in body)]
    names = [name for name in merged if name in heads and not any(fnmatchcase(name, glob) for glob in allowed)]
    globs = list(dict.fromkeys(head_glob(name, body) for name in names))
    changed = [frozenset(checkpoint.changed_from(base.origin)) for checkpoint in checkpoints]
    for name in names:
        for checkpoint, classes, own in zip(checkpoints, named, changed, strict=True):
            if name not in own:
                continue  # the head of the base model itself
            if expected is None or classes != expected or checkpoint.tensors[name].saved_in_adapter:
                raise _other_classes(name, base, checkpoint, selection, globs)


def _other_classes(
    name: str, base: Checkpoint, checkpoint: Checkpoint, selection: Selection, globs: Sequence[str]
) -> CheckpointError:
    """Return the error for a head whose classes are unknown or differ; `globs` match all heads."""
    in_adapter = checkpoint.tensors[name].saved_in_adapter
    found = "classes that an adapter does not name" if in_adapter else _described(checkpoint.config)
    both_unknown = distinct_class_names(checkpoint.config) is None and distinct_class_names(base.config) is None
    if both_unknown and not in_adapter:
        other = f"and neither does that of the base model {base.label}"
    else:
        other = f"but the head of the base model {base.label} is for {_described(base.config)}"
    merge = selection.including([*selection.include, *globs] if selection.include else ["*"])
    return checkpoint.origin.error(
        f"{name!r} belongs to a classification head for {found}, {other}",
        hint=f"keep the base model's head: {selection.excluding(globs)}; or, if both heads have the same classes in "
        f"the same order, merge it: {merge}",
        tensor=name,
    )


@dataclass(frozen=True)
class _Known:
    """Facts about heads that the configs of the base model and of the checkpoints have.

    Attributes:
        counts: the numbers of classes.
        modules: the modules that are heads.
    """

    counts: frozenset[int]
    modules: frozenset[str]

    @classmethod
    def of(cls, models: Sequence[Checkpoint]) -> _Known:
        counts = (class_count(model.config) for model in models)
        modules = (module for model in models for module in head_modules(model.config))
        return cls(frozenset(count for count in counts if count is not None), frozenset(modules))


def _is_head(name: str, base: Checkpoint, rule: MatrixRule, known: _Known) -> bool:
    plain = _WRAPPERS.sub("", name)
    if any(fnmatchcase(plain, glob) for glob in _SAME_EVERYWHERE):
        return False
    if name in rule.heads or any(fnmatchcase(plain, glob) for glob in HEADS):
        return True
    shape = base.tensors[name].shape
    if name not in rule.unknown or not shape or is_lookup_table(name):
        return False
    usual = any(fnmatchcase(plain, glob) for glob in UNKNOWN_HEADS)
    if known.modules:
        named = any(plain.startswith(f"{module}.") for module in known.modules)
        return named or (usual and shape[0] in known.counts)
    if known.counts:
        return shape[0] in known.counts
    # A text model's head has a row for each token, and tokens are not classes.
    return usual and shape[0] != base.config.get("vocab_size")


def head_glob(name: str, body: Collection[str]) -> str:
    """Return the widest glob for a module that contains this tensor and no tensor of the body."""
    parts = name.split(".")
    for depth in range(1, len(parts)):
        inside = ".".join(parts[:depth]) + "."
        if not any(other.startswith(inside) for other in body):
            return f"{inside}*"
    return name


def _described(config: Mapping[str, Any]) -> str:
    classes, count = distinct_class_names(config), class_count(config)
    if classes is not None:
        return listed(classes, most=4)
    if count == 1 or config.get("problem_type") == "regression":
        kind = "a quantity"
    else:
        kind = "classes" if count is None else counted(count, "class", "classes")
    return f"{kind} that its config.json does not name"
