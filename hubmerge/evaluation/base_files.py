"""Base model of a task, as its config and the names of its files describe it. No weight is read."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from hubmerge.checkpoints.checkpoint import first_architecture
from hubmerge.checkpoints.planning.class_names import class_names
from hubmerge.checkpoints.weight_names import is_timm
from hubmerge.errors import EvaluationError
from hubmerge.support.versions import INSTALL_EVAL

VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model", "*.tiktoken", "tokenizer.*")
"""Patterns of the files of a tokenizer. Without any of them, transformers returns one with an empty vocabulary."""


@dataclass(frozen=True)
class BaseFiles:
    """Config and file names of a base model.

    Attributes:
        label: the name of the base model in messages.
        config: its config.json.
        names: the names of its files.
    """

    label: str
    config: Mapping[str, Any]
    names: frozenset[str]


def check_clip(base: BaseFiles) -> None:
    """Check that the base model is a CLIP model with both towers.

    Raises:
        EvaluationError: its type is another one.
    """
    kind = base.config.get("model_type")
    if kind != "clip":
        raise EvaluationError(
            f"{base.label}: the base model is of type {kind!r}, zero-shot image classification needs a full 'clip' "
            "model",
            hint="choose a base model with both towers, such as openai/clip-vit-base-patch32",
        )


def check_image_processor(base: BaseFiles) -> None:
    """Check that the base model has the settings of an image processor.

    Raises:
        EvaluationError: it has none.
    """
    if is_timm(base.config):
        return  # the preprocessing is in config.json
    if not any(name.endswith("processor_config.json") for name in base.names):
        raise EvaluationError(
            f"{base.label}: the base model's repo has no image processor",
            hint="choose a base model with a preprocessor_config.json",
        )


def check_tokenizer(base: BaseFiles) -> None:
    """Check that the base model has a tokenizer.

    Raises:
        EvaluationError: it has none.
    """
    if not any(fnmatchcase(name, pattern) for name in base.names for pattern in VOCABULARIES):
        raise EvaluationError(
            f"{base.label}: the base model's repo has no tokenizer",
            hint=f"choose a base model with one of the files {', '.join(VOCABULARIES)}",
        )


def entailment_row(config: Mapping[str, Any]) -> int | None:
    """Return the class of a model for inference that says that a text entails a sentence; None for another model."""
    names = class_names(config) or ()
    rows = [row for row, name in enumerate(names) if name.casefold().startswith("entail")]
    return rows[0] if len(rows) == 1 else None


def check_entailment(base: BaseFiles) -> None:
    """Check that the base model is one for inference, or an embedder, as far as its config says so.

    Raises:
        EvaluationError: it is a model of another architecture.
    """
    if entailment_row(base.config) is not None:
        return
    known = first_architecture(base.config)
    if "modules.json" not in base.names and known and not known.endswith(("Model", "ForMaskedLM")):
        raise EvaluationError(
            f"{base.label}: the base model is a {known} without a class 'entailment', zero-shot text classification "
            "needs one for natural language inference, or an embedder",
            hint="choose a base model whose `id2label` has entailment, or one of sentence-transformers",
        )
    check_embedder(base)


def check_embedder(base: BaseFiles) -> None:
    """Check that sentence-transformers is installed to load the base model.

    Raises:
        EvaluationError: it is not installed.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise EvaluationError(
            f"{base.label}: sentence-transformers is not installed, which loads embedders",
            hint=INSTALL_EVAL,
        )


def check_classification_head(base: BaseFiles) -> None:
    """Check that the base model has a head for texts, as far as its config says so.

    Raises:
        EvaluationError: it is a model of another architecture.
    """
    _check_architecture(base, "ForSequenceClassification", "text classification")


def check_image_head(base: BaseFiles) -> None:
    """Check that the base model has a head for images, as far as its config says so.

    Raises:
        EvaluationError: it is a model of another architecture.
    """
    _check_architecture(base, "ForImageClassification", "image classification")


def _check_architecture(base: BaseFiles, ending: str, task: str) -> None:
    names = base.config.get("architectures")
    known = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    if known and not any(name.endswith(ending) for name in known):
        hint = "choose a base model with a head for the task, like its checkpoints"
        if base.config.get("model_type") == "clip" and task == "image classification":
            hint = "for a CLIP model set `kind: zero-shot-image-classification`"
        raise EvaluationError(
            f"{base.label}: the base model is a {known[0]}, {task} needs a classification head", hint=hint
        )
