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
from hubmerge.checkpoints.vocabulary.row_reader import RowReader
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
        """Read the mean of the donors of each row, in float32, or float64 if a model is stored so."""
        donors = self.resizing.plan.donors
        numbers = sorted(donors)
        used = sorted({model for rows in donors.values() for model, _ in rows}) or [0]
        readers = {model: self._reader(model, role) for model in used}
        dtype = torch.float32
        for reader in readers.values():
            dtype = torch.promote_types(dtype, reader.dtype)
        sums = torch.zeros((len(numbers), *readers[used[0]].row_shape), dtype=dtype)
        for model, reader in readers.items():
            taken = [
                (row, place) for place, number in enumerate(numbers) for one, row in donors[number] if one == model
            ]
            taken.sort()
            for part in (taken[start : start + _ROWS_AT_ONCE] for start in range(0, len(taken), _ROWS_AT_ONCE)):
                rows, places = torch.tensor(part, dtype=torch.int64).T
                shares = torch.tensor([1.0 / len(donors[numbers[place]]) for _, place in part], dtype=dtype)
                values = reader.take(rows).to(dtype) * shares.reshape(-1, *[1] * len(reader.row_shape))
                sums.index_add_(0, places, values)
        return torch.tensor(numbers, dtype=torch.int64), sums

    def _reader(self, model: int, role: str) -> RowReader:
        """Return the reader of a tensor of a model in its own vocabulary."""
        facts, checkpoint = self.resizing.embeddings[model], self.bound[model]
        name = facts.stored_name(role)
        if name is None:
            raise CheckpointError(
                f"{checkpoint.label}: it has no tensor for {role!r}, of which other models take rows",
                hint="write `tokenizer_source: base` in the recipe, or remove the model",
            )
        return RowReader(checkpoint, name, facts.axes[name])


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
        """Return a tensor in its stored dtype, or with rows that are not the model's own in float32 or wider."""
        axis = self._axes.get(name)
        if axis is None:
            return self._checkpoint.read(name)
        return torch.cat(list(self._blocks(name))).movedim(0, axis).contiguous()

    def _blocks(self, name: str) -> Iterator[torch.Tensor]:
        """Yield the rows of the merged model block by block."""
        plan = self._models.resizing.plan
        empty = sorted(set(range(plan.rows)).difference(plan.tokens.values()))
        mean: torch.Tensor | None = None
        if empty:
            blocks = (block.sum(0, dtype=torch.float64) for _, block in self._token_blocks(name))
            mean = sum(blocks, torch.zeros((), dtype=torch.float64)) / len(plan.tokens)
        without = torch.tensor(empty, dtype=torch.int64)
        for start, block in self._token_blocks(name):
            if mean is not None:
                inside = without[(without >= start) & (without < start + len(block))] - start
                block[inside] = mean.to(block.dtype)
            yield block

    def _token_blocks(self, name: str) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield the first number and the rows of each block; rows without a token are zero."""
        plan, facts = self._models.resizing.plan, self._models.resizing.embeddings[self._model]
        places = torch.tensor(plan.places[self._model], dtype=torch.int64)
        places = torch.cat([places, places.new_full((plan.rows - len(places),), -1)])
        reader = RowReader(self._checkpoint, name, self._axes[name], places[places >= 0])
        given, values = self._given(places, facts.roles[name])
        for start in range(0, plan.rows, reader.rows_at_once):
            own = places[start : start + reader.rows_at_once]
            block = torch.zeros((len(own), *reader.row_shape), dtype=self.tensors[name].dtype)
            block[own >= 0] = reader.take(own[own >= 0]).to(block.dtype)
            inside = (given >= start) & (given < start + len(own))
            if bool(inside.any()):
                block[given[inside] - start] = values[inside].to(block.dtype)
            yield start, block

    def _given(self, places: torch.Tensor, role: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return numbers and values of the rows that the model lacks, or that all models get."""
        plan = self._models.resizing.plan
        if not plan.receives(self._model) or not plan.donors:
            return torch.zeros(0, dtype=torch.int64), torch.zeros(0)
        numbers, values = self._models.donated(role)
        forced = torch.tensor([number in plan.forced for number in numbers.tolist()], dtype=torch.bool)
        taken = (places[numbers] < 0) | forced
        return numbers[taken], values[taken]

    def read_pieces(self, name: str, elements: int) -> Iterator[torch.Tensor]:
        """Yield a tensor's values, flat, in pieces."""
        axis = self._axes.get(name)
        if axis is None:
            return self._checkpoint.read_pieces(name, elements)
        if axis > 0:
            return iter(self.read(name).reshape(-1).split(elements))
        return _in_pieces((block.reshape(-1) for block in self._blocks(name)), elements)

    def can_read_pieces(self, name: str) -> bool:
        """Return True if reading in pieces needs at most the model's own tensor in memory."""
        axis = self._axes.get(name)
        return self._checkpoint.can_read_pieces(name) if axis is None else axis == 0

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


def _in_pieces(blocks: Iterable[torch.Tensor], elements: int) -> Iterator[torch.Tensor]:
    """Yield the values of flat tensors in pieces of one size; the last one may be shorter."""
    waiting: list[torch.Tensor] = []
    count = 0
    for block in blocks:
        waiting.append(block)
        count += len(block)
        if count >= elements:
            whole = torch.cat(waiting)
            full = count - count % elements
            yield from whole[:full].split(elements)
            waiting, count = [whole[full:]], count - full
    if count:
        yield torch.cat(waiting)
