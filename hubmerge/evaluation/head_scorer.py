"""Models for scoring that are built from a body and a head: the merged model with the head of one checkpoint."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers

from hubmerge.checkpoints import Checkpoint, Selection, align_models, weight_matrices
from hubmerge.checkpoints.checkpoint import first_architecture
from hubmerge.checkpoints.matching.names import parameter_shapes
from hubmerge.checkpoints.model_class.class_lookup import config_folder, without_code
from hubmerge.checkpoints.planning.class_names import class_count, class_names
from hubmerge.checkpoints.planning.heads import HEADS, UNKNOWN_HEADS
from hubmerge.checkpoints.weight_names import is_timm
from hubmerge.errors import CheckpointError, EvaluationError
from hubmerge.evaluation.own_head import OwnHead
from hubmerge.evaluation.stoppable import stoppable
from hubmerge.evaluation.text_model import load_tokenizer, most_tokens
from hubmerge.evaluation.timm_model import build_timm


class HeadScorer:
    """Scorer with a model of transformers or timm, in float32 on `device`, built anew for all weights that it loads.

    `head` is the head of a checkpoint, None for that of the loaded weights. The scorer has no model until weights are
    loaded, and `release` frees it, so that a stream of many heads has one model in memory.
    """

    def __init__(
        self,
        base_folder: Path,
        base: Checkpoint,
        head: OwnHead | None,
        *,
        identity: str,
        device: str | torch.device = "cpu",
    ) -> None:
        self.base_folder, self.identity = base_folder, identity
        self.device = torch.device(device)
        self._base, self._head = base, head
        self.timm = is_timm(base.config)
        self.owner = "the base model's head" if head is None else head.facts.label
        self._config = dict(base.config) if head is None else head.facts.full_config(base.config)
        self.model: Any = None
        self.label = f"{base.label} (not loaded)"

    @property
    def head_classes(self) -> tuple[tuple[str, ...] | None, int]:
        """Names of the head's classes, None if there are none, and their number."""
        if self._head is not None:
            return self._head.facts.classes(self._base.config)
        names = class_names(self._config)
        return names, class_count(self._config) or len(names or ())

    def load(self, weights: Checkpoint, *, check_frozen: bool = True) -> None:  # noqa: ARG002 - as all scorers
        """Load a model with the architecture of the base model, with any tensor names that its checkpoints may have.

        With `check_frozen` it is the merged model and must have every tensor. Without, it is a fine-tuned checkpoint:
        missing tensors are those of the base model, as in a merge. Heads of other shapes than this one's are not used.

        Raises:
            CheckpointError: a tensor is missing, unknown or has another shape.
            EvaluationError: the head and the weights are not a whole model.
        """
        self.release()
        body = self._under_base_names(weights)
        names = parameter_shapes(self._base.tensors)
        source = {name: body if name in body.tensors else self._base for name in names}
        values = {name: source[name].read(name).float() for name in names}
        if self._head is not None:
            values |= {name: tensor.float() for name, tensor in self._head.read().items()}
        self.model = self._built(values, weights.label)
        self.label = weights.label

    def load_base(self) -> None:
        """Load the weights of the base model."""
        self.load(self._base)

    def release(self) -> None:
        """Free the memory of the model; the next weights build it anew."""
        if self.model is not None:
            self.model = None
            gc.collect()
        self.label = f"{self._base.label} (not loaded)"

    def image_logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the outputs for images, (B, C)."""
        found = self.model(pixels) if self.timm else self.model(pixel_values=pixels).logits
        values: torch.Tensor = found
        return values

    def _under_base_names(self, weights: Checkpoint) -> Checkpoint:
        if parameter_shapes(self._base.tensors).items() <= parameter_shapes(weights.tensors).items():
            return weights
        rule = weight_matrices(self._base.config, self._base.tensors)
        try:
            return align_models(self._base, rule, [weights], untied=None, own_heads=True).aligned[0]
        except CheckpointError:
            if self._head is None:
                raise
        selection = Selection(exclude=(*HEADS, *UNKNOWN_HEADS))
        return align_models(self._base, rule, [weights], untied=None, selection=selection, own_heads=True).aligned[0]

    def _built(self, values: Mapping[str, torch.Tensor], label: str) -> Any:
        try:
            model = build_timm(self._config, values) if self.timm else self._of_transformers(values, label)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise self._failure(label, f"cannot be built: {str(error).splitlines()[0]}") from error
        model.requires_grad_(requires_grad=False)
        return stoppable(model.eval().to(self.device))

    def _of_transformers(self, values: Mapping[str, torch.Tensor], label: str) -> Any:
        named = first_architecture(self._config)
        found_class = getattr(transformers, str(named), None)
        if not (isinstance(found_class, type) and issubclass(found_class, transformers.PreTrainedModel)):
            raise self._failure(label, f"cannot be built: transformers has no class {named!r}")
        model_class: Any = found_class
        with config_folder(without_code(self._config)) as folder:
            model, found = model_class.from_pretrained(
                None, config=folder, state_dict=dict(values), local_files_only=True, trust_remote_code=False,
                output_loading_info=True,
            )  # fmt: skip
        if found["missing_keys"]:
            # transformers would draw them at random.
            raise self._failure(label, f"lacks the tensor {min(map(str, found['missing_keys']))!r}")
        return model

    def _failure(self, label: str, problem: str) -> EvaluationError:
        return EvaluationError(
            f"{label}: the model with {self.owner} {problem}",
            hint="score the task with another head: `head: ENTRY`, or `head: base` for the base model's",
            file=str(self.base_folder),
        )


class TextHeadScorer(HeadScorer):
    """Scorer with a text model that is built from a body and a head, and the tokenizer of the base model."""

    @cached_property
    def tokenizer(self) -> Any:
        """Tokenizer of the base model."""
        return load_tokenizer(self.base_folder, self._base.label)

    @property
    def max_tokens(self) -> int:
        """Largest number of tokens of a text that the model accepts."""
        return most_tokens(self._config, self.tokenizer)
