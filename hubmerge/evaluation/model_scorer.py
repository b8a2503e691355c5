"""Model for scoring: built once from the base model, its weights replaced after every step."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hubmerge.checkpoints import Checkpoint, Selection, align_models, weight_matrices
from hubmerge.checkpoints.matching.names import parameter_shapes
from hubmerge.checkpoints.model_class.model_class import ModelClass, find_model_class
from hubmerge.checkpoints.planning.class_names import class_names
from hubmerge.checkpoints.planning.heads import HEADS
from hubmerge.errors import CheckpointError, EvaluationError
from hubmerge.evaluation.stoppable import stoppable


class ModelScorer:
    """Scorer with a model of transformers, in float32 on `device`.

    `auto_class` is a class of transformers such as AutoModelForCausalLM, `task` the task kind for messages. A new
    scorer has the weights of the base model.
    """

    def __init__(
        self,
        base_folder: Path,
        base: Checkpoint,
        auto_class: Any,
        task: str,
        *,
        identity: str,
        device: str | torch.device = "cpu",
    ) -> None:
        self.base_folder, self.identity = base_folder, identity
        self.device = torch.device(device)
        self._base, self.owner = base, "the base model's head"
        self.model: Any = self._open(base_folder, auto_class, base.label, task).to(self.device)
        self._places = _places(self.model, base)
        self._ties: Mapping[str, str] = dict(getattr(self.model, "all_tied_weights_keys", {}))
        self.label = base.label

    def load(self, weights: Checkpoint, *, check_frozen: bool = True) -> None:
        """Load a model with the architecture of the base model, with any tensor names that its checkpoints may have.

        With `check_frozen` it is the merged model and must have every tensor. Without, it is a fine-tuned checkpoint:
        missing tensors and a classification head of another shape are those of the base model, as in a merge.

        Raises:
            CheckpointError: a tensor is missing, unknown or has another shape.
        """
        tensors = self._under_base_names(weights, own=not check_frozen)
        own_heads = self._own_heads(weights)
        self.label = f"{weights.label} (not loaded completely)"
        if self._places is None:
            self.model = self._rebuilt(tensors, own_heads)
        else:
            with torch.no_grad():
                self._tie(apart=own_heads)
                state = self.model.state_dict()
                for name, stored in self._places.items():
                    state[name].copy_(self._read(tensors, stored))
                for name, values in own_heads.items():
                    state[name].copy_(values)
        self.label = weights.label

    def load_base(self) -> None:
        """Load the weights of the base model."""
        self.load(self._base)

    @property
    def head_classes(self) -> tuple[tuple[str, ...] | None, int]:
        """Names of the head's classes, None if there are none, and their number."""
        return class_names(self.model.config.to_dict()), self.model.config.num_labels

    def image_logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the outputs for images, (B, C)."""
        values: torch.Tensor = self.model(pixel_values=pixels).logits
        return values

    def _open(self, folder: Path, auto_class: Any, label: str, task: str) -> Any:
        return _load_base(folder, auto_class, label, task)

    def _under_base_names(self, weights: Checkpoint, *, own: bool) -> Checkpoint:
        expected = parameter_shapes(self._base.tensors)
        if expected.items() <= parameter_shapes(weights.tensors).items():
            return weights
        rule = weight_matrices(self._base.config, self._base.tensors)
        align = partial(align_models, self._base, rule, [weights], untied=None)
        try:
            return align().aligned[0]
        except CheckpointError:
            if not own:
                raise
        return align(selection=Selection(exclude=HEADS)).aligned[0]

    def _own_heads(self, weights: Checkpoint) -> dict[str, torch.Tensor]:
        """Return the tensors of a model that the scorer's model ties and that have values of their own there."""
        if not self._ties:
            return {}
        found = find_model_class(self._base.config, weights.tensors)
        own_names = found.own_names if isinstance(found, ModelClass) else {}
        stored = {own_names.get(name, name): name for name in parameter_shapes(weights.tensors)}
        pairs = ((alias, owner) for alias, owner in self._ties.items() if alias in stored and owner in stored)
        values = ((alias, weights.read(stored[alias]), weights.read(stored[owner])) for alias, owner in pairs)
        return {alias: own for alias, own, other in values if not torch.equal(own, other)}

    def _tie(self, apart: Collection[str]) -> None:
        """Give the model tensors of their own under the names `apart`, and tie all other tied names."""
        for alias, owner in self._ties.items():
            module, _, name = alias.rpartition(".")
            table = self.model.get_parameter(owner)
            frozen = torch.nn.Parameter(table.detach().clone(), requires_grad=False) if alias in apart else table
            setattr(self.model.get_submodule(module), name, frozen)

    def _read(self, tensors: Checkpoint, name: str) -> torch.Tensor:
        return tensors.read(name) if name in tensors.tensors else self._base.read(name)

    def _rebuilt(self, tensors: Checkpoint, own_heads: Mapping[str, torch.Tensor]) -> Any:
        """Return a new model, for classes that join or split the tensors of files on load."""
        kind, config = type(self.model), self.model.config
        self.model = None  # frees its memory before the new one is built
        state = {name: self._read(tensors, name).float() for name in parameter_shapes(self._base.tensors)}
        state |= {name: values.float() for name, values in own_heads.items()}
        model = kind.from_pretrained(None, config=config, state_dict=state, dtype=torch.float32)
        model.requires_grad_(requires_grad=False)
        return stoppable(model.eval().to(self.device))


def _load_base(folder: Path, auto_class: Any, label: str, task: str) -> Any:
    try:
        model, found = auto_class.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise EvaluationError(
            f"{label}: the base model cannot be loaded for a task of the kind {task}: {str(error).splitlines()[0]}",
            hint=f"choose a base model that {auto_class.__name__} of transformers can load",
            file=str(folder),
        ) from error
    if found["missing_keys"]:
        missing = min(map(str, found["missing_keys"]))
        raise EvaluationError(
            f"{label}: the base model lacks the tensor {missing!r}, needed for a task of the kind {task}",
            hint="choose a base model with a head for the task, like its checkpoints",
            tensor=missing,
        )
    model.requires_grad_(requires_grad=False)
    return stoppable(model.eval())


def _places(model: Any, base: Checkpoint) -> Mapping[str, str] | None:
    """Return the name in the base model's files of each parameter, None if they differ in more than names."""
    found_class = find_model_class(base.config, base.tensors)
    known = found_class.own_names if isinstance(found_class, ModelClass) else {}
    stored = {known.get(name, name): name for name in parameter_shapes(base.tensors)}
    ties = dict(getattr(model, "all_tied_weights_keys", {}))
    found = {name: stored[name] for name, _ in _parameters(model) if name in stored}
    rest = [name for name, _ in _parameters(model) if name not in found and ties.get(name) not in found]
    # Buffers that are saved with the weights.
    return None if rest else {**{name: stored[name] for name in model.state_dict() if name in stored}, **found}


def _parameters(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every parameter; a shared one under each of its names."""
    yield from model.named_parameters(remove_duplicate=False)
