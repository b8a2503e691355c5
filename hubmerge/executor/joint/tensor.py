"""One tensor of a joint merge: its values in all models, read in blocks, and the merged result."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import torch

from hubmerge.checkpoints import Checkpoint, PlannedTensor
from hubmerge.errors import CheckpointError
from hubmerge.executor.joint.inputs import JointMerge
from hubmerge.executor.parallel.context import ExecutorContext
from hubmerge.executor.reading import ELEMENTS_AT_ONCE, all_finite, first_not_finite
from hubmerge.linalg import cast_once

ELEMENTS_ON_DEVICE = 1 << 25
"""Elements of a block on a device other than the CPU, whose kernels are slow to start."""


class JointTensor:
    """Implementation of `hubmerge.methods.joint.TensorView` for the files of a merge."""

    def __init__(self, joint: JointMerge, tensor: PlannedTensor, context: ExecutorContext) -> None:
        self._joint = joint
        self._tensor = tensor
        self._context = context
        self._models = [model.checkpoint for model in joint.models]
        self._whole: dict[int, torch.Tensor] = {}
        self._checked: set[int] = set()
        self._parameters = joint.parameters(tensor)
        self._method = joint.method.variant_for(self._parameters.whole)

    @property
    def count(self) -> int:
        """Number of models, without the base model."""
        return len(self._models)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self._tensor.shape

    @property
    def elements(self) -> int:
        """Number of elements."""
        return self._tensor.elements

    def blocks(self) -> Iterator[tuple[torch.Tensor | None, list[torch.Tensor]]]:
        """Yield base model and models block by block."""
        for _, base, tensors in self._numbered_blocks(self._owners):
            yield base, tensors

    def deltas(self, model: int) -> Iterator[torch.Tensor]:
        """Yield the blocks of one model minus the base model; without a base model, those of the model."""
        origin = [self._joint.base] if self._joint.has_origin else []
        for _, base, (values,) in self._numbered_blocks([*origin, self._models[model]]):
            yield values.clone() if base is None else values - base

    def merged(self) -> Iterator[torch.Tensor]:
        """Yield the merged values in work precision, flat, block by block.

        Raises:
            CheckpointError: a value of a model is not finite.
        """
        method, parameters = self._method, self._parameters
        if not self.elements:
            yield torch.empty(0, dtype=self._dtype)
            return
        if method.blocks == "tensor":
            base = self._read(self._joint.base) if self._joint.has_origin else None
            yield method.merge(base, _Tensors(self), parameters).reshape(-1)
            return
        parameters = replace(parameters, survey=method.survey(self, parameters))
        for start, base, tensors in self._numbered_blocks(self._owners):
            yield method.merge(base, tensors, replace(parameters, start=start)).reshape(-1)

    def read_model(self, model: int) -> torch.Tensor:
        """Return the whole tensor of one model in work precision."""
        return self._read(self._models[model])

    @property
    def _owners(self) -> list[Checkpoint]:
        return [self._joint.base, *self._models] if self._joint.has_origin else self._models

    @cached_property
    def _dtype(self) -> torch.dtype:
        """The dtype of the arithmetic: float32, or float64 if a model is stored so."""
        rounded = self._context.input_dtype
        stored = {owner.tensors[self._tensor.name].dtype for owner in self._owners} if rounded is None else {rounded}
        return torch.float64 if torch.float64 in stored else torch.float32

    @property
    def _block_shape(self) -> tuple[int, ...]:
        """The shape of a block; its first dimension is as large as the block."""
        if self._method.blocks != "rows":
            return (-1,)
        return (-1, self._tensor.shape[-1] if self._tensor.shape else 1)

    @property
    def _block_elements(self) -> int:
        most = ELEMENTS_AT_ONCE if self._context.device.type == "cpu" else ELEMENTS_ON_DEVICE
        columns = max(1, -self._block_shape[0] * math.prod(self._block_shape[1:]))
        return max(1, most // columns) * columns

    def _numbered_blocks(
        self, owners: Sequence[Checkpoint]
    ) -> Iterator[tuple[int, torch.Tensor | None, list[torch.Tensor]]]:
        """Yield blocks of these models with the index of their first element; the base model first if it is one."""
        shape, start = self._block_shape, 0
        has_base = self._joint.has_origin
        for pieces in zip(*(self._pieces(owner) for owner in owners), strict=True):
            blocks = [piece.view(shape) if piece.numel() else piece.reshape(0, *shape[1:]) for piece in pieces]
            yield start, blocks[0] if has_base else None, blocks[1:] if has_base else blocks
            start += pieces[0].numel()

    def _pieces(self, owner: Checkpoint) -> Iterator[torch.Tensor]:
        """Yield the values of one model, flat, in work precision; the first pass checks them."""
        name, size = self._tensor.name, self._block_elements
        if owner.can_read_pieces(name):
            stored = owner.read_pieces(name, size)
        else:
            if id(owner) not in self._whole:
                self._whole[id(owner)] = owner.read(name).reshape(-1)
            stored = iter(self._whole[id(owner)].split(size))
        for piece in stored:
            yield self._converted(owner, piece)
        self._checked.add(id(owner))

    def _converted(self, owner: Checkpoint, stored: torch.Tensor) -> torch.Tensor:
        values = stored.to(self._context.device)
        if self._context.input_dtype is not None:
            values = cast_once(values, self._context.input_dtype)
        if id(owner) not in self._checked and not all_finite(values):
            raise self._not_finite(owner)
        return values.to(self._dtype)  # a wider dtype, in which finite values stay finite

    def _read(self, owner: Checkpoint) -> torch.Tensor:
        return self._converted(owner, owner.read(self._tensor.name))

    def _not_finite(self, owner: Checkpoint) -> CheckpointError:
        stored = owner.read(self._tensor.name)
        label, name = owner.place_of(self._tensor.name)
        if all_finite(stored):
            return CheckpointError(
                f"{label}: tensor {name!r} has values that are too large for {self._context.input_dtype}",
                hint="choose a wider `dtype` in the recipe, or leave it out",
                tensor=name,
            )
        return CheckpointError(
            f"{label}: tensor {name!r}: {first_not_finite(stored)}",
            hint="do not merge this model; training probably diverged, or the file is corrupt",
            tensor=name,
        )


class _Tensors(Sequence[torch.Tensor]):
    """The tensors of all models, each read when it is asked for."""

    def __init__(self, view: JointTensor) -> None:
        self._view = view

    def __len__(self) -> int:
        return self._view.count

    def __getitem__(self, index: int) -> torch.Tensor:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._view.read_model(index)
