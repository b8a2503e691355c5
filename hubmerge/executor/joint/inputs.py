"""Inputs of a joint merge."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic import BaseModel

from hubmerge.checkpoints import Checkpoint, MergePlan, PlannedTensor
from hubmerge.methods.joint import JointMethod, JointParameters

_LAYER = re.compile(r"(?:^|\.)(\d+)\.")
_EMBEDDING = re.compile(r"emb(?:ed|\.|$)|(?:^|\.)(?:wte|wpe|conv1|pre_layrnorm|pre_layernorm|ln_pre|shared)(?:\.|$)")
"""Part of the name of a tensor that comes before the layers."""


@dataclass(frozen=True)
class JointInput:
    """A model aligned with the base model, and the method's parameters for each tensor."""

    checkpoint: Checkpoint
    parameters_for: Callable[[str], BaseModel]


@dataclass(frozen=True)
class JointMerge:
    """Inputs of a joint merge.

    Attributes:
        base: the model that lends names, shapes and kept tensors.
        method: the merge method.
        plan: the tensors.
        models: the models to merge; the base model is among them only if the method treats it like any other.
        has_origin: True if task vectors start from the base model.
        seed: seed of random methods.
        slices: the inputs of each slice, if layers are stacked.
        slice_of: returns the number of the slice that a tensor is merged in.
    """

    base: Checkpoint
    method: JointMethod
    plan: MergePlan
    models: Sequence[JointInput]
    has_origin: bool = True
    seed: int = 0
    slices: tuple[JointMerge, ...] = ()
    slice_of: Callable[[str], int] | None = None

    def inputs_of(self, name: str) -> JointMerge:
        """Return the inputs for one tensor: those of its slice, if layers are stacked."""
        return self if self.slice_of is None else self.slices[self.slice_of(name)]

    def parameters(self, tensor: PlannedTensor) -> JointParameters[BaseModel]:
        """Return the parameters for one tensor."""
        models = tuple(model.parameters_for(tensor.name) for model in self.models)
        return JointParameters(
            models[0],
            models,
            tensor.name,
            tensor.action == "merge-matrix",
            layer_number(tensor.name),
            self._layers,
            _EMBEDDING.search(tensor.name) is not None,
            seed=self.seed,
            transposed=tensor.transposed,
        )

    @cached_property
    def _layers(self) -> int:
        numbers = [layer_number(tensor.name) for tensor in self.plan.merged]
        return 1 + max((number for number in numbers if number is not None), default=-1)


def layer_number(name: str) -> int | None:
    """Return the number of the layer that a tensor belongs to: the first number in its name.

    >>> layer_number("model.layers.11.mlp.up_proj.weight"), layer_number("lm_head.weight")
    (11, None)
    """
    found = _LAYER.search(name)
    return int(found[1]) if found else None
