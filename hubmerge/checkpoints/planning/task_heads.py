"""Heads of fine-tuned models that the base model does not have, or has for another number of classes.

They are found in a checkpoint, and written beside the merged model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.formats.safetensors_writer import SafetensorsWriter
from hubmerge.checkpoints.matching.names import Renaming, Shapes, best_renamings, parameter_shapes
from hubmerge.checkpoints.matching.selection import ALL_TENSORS, Selection
from hubmerge.checkpoints.planning.class_names import class_count, class_names, head_modules
from hubmerge.checkpoints.planning.heads import HEADS, UNKNOWN_HEADS, head_glob
from hubmerge.checkpoints.planning.matrices import weight_matrices

_TASK_CLASS = re.compile(r"For(?!CausalLM|ConditionalGeneration)[A-Z]\w*")
_ADAPTED_HEADS = ("qa_outputs.*",)
_POOLERS = frozenset({"pooler", "sequence_summary"})
_SAME_ANYWHERE = frozenset(
    {
        "_name_or_path",
        "architectures",
        "auto_map",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "quantization_config",
    }
)
"""Keys of a config that say nothing about a head."""


def find_head(base: Checkpoint, checkpoint: Checkpoint, selection: Selection = ALL_TENSORS) -> tuple[str, ...]:
    """Return the tensors of a checkpoint's own head, which the base model does not have, or has with another shape.

    A head is in modules at the top of the model, or a pooler, and belongs to the class of a task: classification,
    question answering, masked language modeling and so on. Where the class is not known, it has the usual names.

    A head for another number of classes than the base model's is the checkpoint's own as well, with all tensors of its
    module.

    Args:
        base: the base model.
        checkpoint: the fine-tuned model.
        selection: the rule of the recipe; excluded tensors are no part of a head.

    Returns:
        Names in the checkpoint's files; none if it has no head.
    """
    own = parameter_shapes(checkpoint.tensors)
    renaming = _renaming(base, own)
    if renaming is None:
        return ()
    places = {name: renaming.target(name, base.tensors) for name in own}
    extra = [name for name, place in places.items() if place is None]
    extra = [name for name in extra if all(selection.covers(one) for one in renaming.candidates(name))]
    other = [name for name, place in places.items() if place is not None and base.tensors[place].shape != own[name]]
    resized = _resized(checkpoint, [name for name in other if selection.covers(places[name] or name)])
    if not extra or 2 * len(extra) > len(own):
        return resized
    body = {_top(name) for name in own if name not in set(extra)}
    outside = [name for name in extra if _top(name) not in body or _POOLERS.intersection(name.split("."))]
    return (*(_of_a_task(checkpoint, outside) if outside else ()), *resized)


def places_of_head(base: Checkpoint, checkpoint: Checkpoint, names: tuple[str, ...]) -> frozenset[str]:
    """Return the names of a head in the checkpoint, and its names in the base model where it has such a head."""
    if not names:
        return frozenset()
    renaming = _renaming(base, parameter_shapes(checkpoint.tensors)) or Renaming()
    return frozenset({*names, *filter(None, (renaming.target(name, base.tensors) for name in names))})


def _renaming(base: Checkpoint, own: Shapes) -> Renaming | None:
    """Return how a checkpoint's names become the base model's, or those of a model inside; None if it is ambiguous."""
    targets = parameter_shapes(base.tensors)
    found = best_renamings(own, targets)
    if 2 * sum(found[0].target(name, targets) is not None for name in own) < len(own):
        found = best_renamings(own, targets, weight_matrices(base.config, base.tensors).parts.models)
    return found[0] if len(found) == 1 else None


def _resized(checkpoint: Checkpoint, other: list[str]) -> tuple[str, ...]:
    """Return the heads with tensors of `other`, whose shape differs from the base model's; none if not all have one."""
    if not other:
        return ()
    rule = weight_matrices(checkpoint.config, checkpoint.tensors)
    modules = head_modules(checkpoint.config) if rule.no_class is not None else []
    usual = () if rule.no_class is None or modules else UNKNOWN_HEADS
    globs = [*HEADS, *usual, *(f"{module}.*" for module in modules)]
    heads = [
        name for name in checkpoint.tensors if name in rule.heads or any(fnmatchcase(name, glob) for glob in globs)
    ]
    if not set(other) <= set(heads):
        return ()
    body = checkpoint.tensors.keys() - set(heads)
    found = {head_glob(name, body) for name in other}
    return tuple(name for name in heads if any(fnmatchcase(name, glob) for glob in found))


def _of_a_task(checkpoint: Checkpoint, names: list[str]) -> list[str]:
    """Return the tensors that belong to the class of a task, or are named like a head if the class is not known."""
    saved = [name for name in names if checkpoint.tensors[name].saved_in_adapter]
    if saved:
        return [name for name in saved if any(fnmatchcase(name, glob) for glob in (*HEADS, *_ADAPTED_HEADS))]
    rule = weight_matrices(checkpoint.config, checkpoint.tensors)
    if rule.no_class is None:
        return [name for name in names if name not in rule.unknown] if task_class(checkpoint) else []
    modules = head_modules(checkpoint.config)
    globs = [f"{module}.*" for module in modules] or [*HEADS, *UNKNOWN_HEADS]
    return [name for name in names if any(fnmatchcase(name, glob) for glob in globs)]


def task_class(checkpoint: Checkpoint) -> str | None:
    """Return the class of a model for a task, None if it is not known or no class for a task."""
    named = checkpoint.trained_class
    return named if named is not None and _TASK_CLASS.search(named) else None


def write_head(checkpoint: Checkpoint, names: tuple[str, ...], file: Path) -> None:
    """Write the tensors of a head, unchanged, under their names in the checkpoint.

    Raises:
        MachineError: the file cannot be written.
    """
    specs = [checkpoint.tensors[name].spec for name in sorted(names)]
    with SafetensorsWriter(file, specs, digests=False) as writer:
        for spec in specs:
            writer.write_raw(spec.name, checkpoint.raw_chunks(spec.name))
        writer.commit()


def describe_head(checkpoint: Checkpoint, names: tuple[str, ...], merged_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known about a head: class, labels, problem type, and the values of its config.

    An adapter names no classes: they are counted in its tensors.

    Args:
        checkpoint: the model with the head.
        names: the tensors of the head.
        merged_config: the config of the merged model; only values that differ from it are returned.
    """
    config = dict(checkpoint.config)
    saved = [checkpoint.tensors[name] for name in names if checkpoint.tensors[name].saved_in_adapter]
    if saved:
        count = min((info.shape[0] for info in saved if info.shape), default=0)
        config |= {"id2label": {str(number): f"LABEL_{number}" for number in range(count)}}
        config |= {"label2id": {name: int(number) for number, name in config["id2label"].items()}}
    labels = class_names(config)
    return {
        "architecture": task_class(checkpoint),
        "labels": None if labels is None else list(labels),
        "num_labels": class_count(config),
        "problem_type": config.get("problem_type"),
        "config": {
            key: value
            for key, value in sorted(config.items())
            if key not in _SAME_ANYWHERE and merged_config.get(key) != value
        },
    }


def _top(name: str) -> str:
    return name.partition(".")[0]
