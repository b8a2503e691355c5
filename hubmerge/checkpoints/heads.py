"""Classification heads: their rows are classes, and rows of different classes must never be added up in silence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.components import pattern_for
from hubmerge.checkpoints.selection import Selection
from hubmerge.errors import CheckpointError

HEADS = ("classifier", "classifier.*", "*_classifier.*", "score.*")
_UNNAMED = re.compile(r"LABEL_\d+")


def check_head(name: str, base: Checkpoint, checkpoints: Sequence[Checkpoint], selection: Selection) -> None:
    """Check that a tensor to be merged is in no classification head, or in one of the same classes everywhere.

    The classes are those that each config.json names (`id2label`); the default names LABEL_0, LABEL_1, ... tell
    nothing. A recipe that names the head among the tensors to include has decided for itself.

    Raises CheckpointError naming the checkpoint whose classes are not those of the base model.
    """
    if not any(fnmatchcase(name, head) for head in HEADS):
        return
    if any(fnmatchcase(name, pattern) for pattern in selection.include):
        return
    wanted = class_names(base.config)
    for checkpoint in checkpoints:
        found = class_names(checkpoint.config)
        if wanted is None or found != wanted:
            raise CheckpointError(
                f"{checkpoint.label}: {name!r} is in a classification head for {_described(found)}, that of the base "
                f"model {base.label} is for {_described(wanted)}",
                hint=f'keep the base model\'s head: tensors: {{exclude: ["{pattern_for(name)}"]}}; if the classes are '
                'the same and in the same order, merge it: tensors: {include: ["*"]}',
            )


def class_names(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The classes that a config names, in order; None if it names none."""
    labels = config.get("id2label")
    if not isinstance(labels, Mapping) or not labels or not all(str(key).isdecimal() for key in labels):
        return None
    names = tuple(str(labels[key]) for key in sorted(labels, key=int))
    return None if all(_UNNAMED.fullmatch(name) for name in names) else names


def _described(classes: tuple[str, ...] | None) -> str:
    if classes is None:
        return "classes that its config.json does not name"
    return ", ".join(classes[:4]) + (f" and {len(classes) - 4} more" if len(classes) > 4 else "")
