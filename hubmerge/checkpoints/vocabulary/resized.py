"""Models read with the rows of the merged model's vocabulary."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.model_class.embeddings import Embeddings
from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.tensors import TensorInfo
from hubmerge.checkpoints.vocabulary.row_plan import RowPlan
from hubmerge.errors import CheckpointError

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Resizing:
    """The rows of the merged model, with the tensors of each model that have them.

    Attributes:
        plan: the rows.
        embeddings: the tensors of each model with a row for each token.
        config: the config.json of the merged model.
    """

    plan: RowPlan
    embeddings: Sequence[Embeddings]
    config: Mapping[str, Any]


@dataclass
class VocabularyModels:
    """The models of a merge whose rows are read in each other's vocabulary.

    Rows that a model lacks are read from the others, which `bind` names before the first value is read.
    """

    resizing: Resizing
    bound: dict[int, Checkpoint] = field(default_factory=dict)
    _donated: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def bind(self, model: int, checkpoint: Checkpoint) -> None:
        """Name the checkpoint that the rows of a model are read from."""
        self.bound[model] = checkpoint
        self._donated.clear()

    def resized(self, model: int, checkpoint: Checkpoint) -> Checkpoint:
        """Return a model with the rows of the merged model's vocabulary."""
        config = self.resizing.config if model == 0 else checkpoint.config
        return ResizedCheckpoint(checkpoint, self, model, config)

    def donated(self, role: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the numbers of the rows that are not each model's own, and their values; the rows come first."""
        if role not in self._donated:
            self._donated[role] = self._read_donated(role)
        return self._donated[role]

    def _read_donated(self, role: str) -> tuple[torch.Tensor, torch.Tensor]:
        plan = self.resizing.plan
        numbers = sorted(plan.donors)
        given = [plan.donors[number] for number in numbers]
        used = sorted({model for rows in given for model, _ in rows})
        sums: torch.Tensor | None = None
        for model in used or [0]:
            own = self._own(model, role)
            if sums is None:
                sums = torch.zeros((len(numbers), *own.shape[1:]), dtype=torch.float64)
            taken = [(place, row) for place, rows in enumerate(given) for one, row in rows if one == model]
            for part in (taken[start : start + _ROWS_AT_ONCE] for start in range(0, len(taken), _ROWS_AT_ONCE)):
                places, rows = torch.tensor(part, dtype=torch.int64).T
                shares = torch.tensor([1.0 / len(given[place]) for place, _ in part], dtype=torch.float64)
                values = own[rows].to(torch.float64) * shares.reshape(-1, *[1] * (own.dim() - 1))
                sums.index_add_(0, places, values)
        if sums is None:  # there is always a model
            raise ValueError(role)
        return torch.tensor(numbers, dtype=torch.int64), sums

    def _own(self, model: int, role: str) -> torch.Tensor:
        """Return a whole tensor of a model in its own vocabulary, with its rows first."""
        facts, checkpoint = self.resizing.embeddings[model], self.bound[model]
        name = facts.stored_name(role)
        if name is None:
            raise CheckpointError(
                f"{checkpoint.label}: it has no tensor for {role!r}, of which other models take rows",
                hint="write `tokenizer_source: base` in the recipe, or remove the model",
            )
        return checkpoint.read(name).movedim(facts.axes[name], 0)


class ResizedCheckpoint(Checkpoint):
    """A model whose embeddings have the rows of the merged model's vocabulary."""

    def __init__(self, checkpoint: Checkpoint, models: VocabularyModels, model: int, config: Mapping[str, Any]) -> None:
        self._checkpoint, self._models, self._model = checkpoint, models, model
        plan, facts = models.resizing.plan, models.resizing.embeddings[model]
        self._axes = {} if plan.keeps(model) else dict(facts.axes)
        tensors = {
            name: self._resized(info, self._axes[name]) if name in self._axes else info
            for name, info in checkpoint.tensors.items()
        }
        super().__init__(
            checkpoint.origin,
            tensors,
            config,
            {},
            notes=checkpoint.notes,
            names=checkpoint.names,
            metadata=checkpoint.metadata,
        )

    def _resized(self, info: TensorInfo, axis: int) -> TensorInfo:
        """Return the header of a tensor; rows that are computed, or that other models have, are not rounded."""
        plan = self._models.resizing.plan
        shape = (*info.shape[:axis], plan.rows, *info.shape[axis + 1 :])
        exact = torch.promote_types(info.dtype, torch.float32) if plan.receives(self._model) else info.dtype
        return replace(
            info,
            shape=shape,
            dtype=exact,
            nbytes=math.prod(shape) * exact.itemsize,
            model_dtype=info.model_dtype or (info.dtype if exact != info.dtype else None),
        )

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor in its stored dtype, or if it was resized, in float32 or wider; in memory of its own."""
        axis = self._axes.get(name)
        if axis is None:
            return self._checkpoint.read(name)
        info, plan = self.tensors[name], self._models.resizing.plan
        own = self._checkpoint.read(name).movedim(axis, 0)
        places = torch.tensor(plan.places[self._model], dtype=torch.int64)
        has = (places >= 0).nonzero().reshape(-1)
        found = torch.zeros((plan.rows, *own.shape[1:]), dtype=info.dtype)
        for numbers in has.split(_ROWS_AT_ONCE):
            found[numbers] = own[places[numbers]].to(info.dtype)
        self._give(found, places, self._models.resizing.embeddings[self._model].roles[name])
        self._fill(found)
        return found.movedim(0, axis).contiguous()

    def _give(self, found: torch.Tensor, places: torch.Tensor, role: str) -> None:
        """Write the rows that the model lacks, or that all models get."""
        plan = self._models.resizing.plan
        if not plan.donors:
            return
        numbers, values = self._models.donated(role)
        forced = torch.tensor([int(number) in plan.forced for number in numbers], dtype=torch.bool)
        taken = (places[numbers] < 0) | forced
        found[numbers[taken]] = values[taken].to(found.dtype)

    def _fill(self, found: torch.Tensor) -> None:
        """Write the mean of the rows of all tokens into the rows without a token."""
        plan = self._models.resizing.plan
        empty = sorted(set(range(plan.rows)).difference(plan.tokens.values()))
        if not empty:
            return
        total = torch.zeros(found.shape[1:], dtype=torch.float64)
        for block in found.split(_ROWS_AT_ONCE):
            total += block.sum(0, dtype=torch.float64)
        found[torch.tensor(empty)] = (total / len(plan.tokens)).to(found.dtype)

    def read_pieces(self, name: str, elements: int) -> Iterator[torch.Tensor]:
        """Yield a tensor's values, flat, in pieces."""
        if name in self._axes:
            return iter(self.read(name).reshape(-1).split(elements))
        return self._checkpoint.read_pieces(name, elements)

    def can_read_pieces(self, name: str) -> bool:
        """Return True if reading in pieces never needs the whole tensor in memory."""
        return name not in self._axes and self._checkpoint.can_read_pieces(name)

    def has_equal_values(self, first: str, second: str) -> bool:
        """Return True if two tensors have equal values, as far as they can be read now."""
        return self._checkpoint.has_equal_values(first, second)

    def changed_from(self, origin: Origin) -> Collection[str]:
        """Return the names of the tensors that may differ from those of the model at `origin`."""
        return {*self._checkpoint.changed_from(origin), *self._axes}

    def prepare(self, names: Iterable[str]) -> None:
        """Fetch the values of these tensors where they are not on this machine."""
        self._checkpoint.prepare(names)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files with the tensors."""
        return self._checkpoint.files

    def close(self) -> None:
        """Close all open files."""
        self._checkpoint.close()
