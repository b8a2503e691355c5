"""Heads of fine-tuned models whose base model has none: found in a checkpoint, and written beside the merged model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.formats.safetensors_writer import SafetensorsWriter
from hubmerge.checkpoints.matching.names import best_renamings, parameter_shapes
from hubmerge.checkpoints.matching.selection import ALL_TENSORS, Selection
from hubmerge.checkpoints.planning.class_names import class_count, class_names, head_modules
from hubmerge.checkpoints.planning.heads import HEADS, UNKNOWN_HEADS
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
    """Return the tensors of a checkpoint's own head, which the base model does not have.

    A head is in modules at the top of the model, or a pooler, and belongs to the class of a task: classification,
    question answering, masked language modeling and so on. Where the class is not known, it has the usual names.

    Args:
        base: the base model.
        checkpoint: the fine-tuned model.
        selection: the rule of the recipe; excluded tensors are no part of a head.

    Returns:
        Names in the checkpoint's files; none if it has no head.
    """
    own = parameter_shapes(checkpoint.tensors)
    renaming, *ambiguous = best_renamings(own, parameter_shapes(base.tensors))
    extra = [name for name in own if renaming.target(name, base.tensors) is None]
    extra = [name for name in extra if all(selection.covers(one) for one in renaming.candidates(name))]
    if ambiguous or not extra or 2 * len(extra) > len(own):
        return ()
    body = {_top(name) for name in own if name not in set(extra)}
    outside = [name for name in extra if _top(name) not in body or _POOLERS.intersection(name.split("."))]
    return tuple(_of_a_task(checkpoint, outside)) if outside else ()


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
