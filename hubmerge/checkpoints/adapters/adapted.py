"""A model with an adapter: each weight is put together when it is read, and no copy of the model is made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from hubmerge.checkpoints.adapters.adapter import Adapter, LowRank
from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.canonical import names_in_memory
from hubmerge.checkpoints.matching.names import Renaming, Shapes, ambiguous_names, best_renamings, parameter_shapes
from hubmerge.checkpoints.model_class.model_class import ModelClass, find_model_class
from hubmerge.checkpoints.tensors import TensorInfo, describe_shape
from hubmerge.errors import CheckpointError

_TOWERS = {"VisionModel": "vision_model", "TextModel": "text_model", "AudioModel": "audio_model"}


class AdaptedCheckpoint(Checkpoint):
    """The tensors of `model`, under its names, with the changes of `adapter`.

    A changed weight is W + scaling * B A, computed and returned in float64 whatever dtype the model has, so that
    nothing of a small change is rounded away before it is merged. Tensors that the adapter saved along replace the
    model's. All others are the model's own, in their stored dtype.

    Raises CheckpointError if the adapter changes something that the model does not have.
    """

    def __init__(self, model: Checkpoint, adapter: Adapter) -> None:
        label = f"{model.label}+{adapter.label}"
        names = _Names(model, adapter)
        self._model = model
        self._adapter = adapter
        self._whole = {names.of(name, info.shape): info for name, info in adapter.whole.items()}
        self._changes: dict[str, tuple[LowRank, bool]] = {}
        tensors = dict(model.tensors)
        for name, info in self._whole.items():
            tensors[name] = replace(info, name=name, saved_in_adapter=True)
        for change in adapter.changes:
            name, transposed = names.place(change)
            if name not in tensors:
                raise CheckpointError(
                    f"{adapter.label}: it changes {change.module!r}, the model {model.label} has no such module",
                    hint="apply the adapter to the model it was made for",
                )
            shape = tuple(reversed(change.shape)) if transposed else change.shape
            if shape != tensors[name].shape:
                raise CheckpointError(
                    f"{adapter.label}: its change of {change.module!r} is {describe_shape(shape)}, {name!r} of the "
                    f"model {model.label} is {describe_shape(tensors[name].shape)}",
                    hint="apply the adapter to the model it was made for",
                )
            self._changes[name] = (change, transposed)
            tensors[name] = _as_float64(tensors[name])
        super().__init__(label, tensors, model.config, {})

    def read(self, name: str) -> torch.Tensor:
        """The tensor with the adapter's change: float64 if it is changed, else in its stored dtype."""
        whole = self._whole.get(name)
        tensor = self._model.read(name) if whole is None else self._adapter.read(whole)
        if name not in self._changes:
            return tensor
        change, transposed = self._changes[name]
        product = self._adapter.product(change)
        return tensor.to(torch.float64).add_(product.T if transposed else product)

    def prepare(self, names: Iterable[str]) -> None:
        """Fetch what has to be fetched of the model to read these tensors."""
        self._model.prepare([name for name in names if name not in self._whole])

    @property
    def changed(self) -> tuple[str, ...]:
        """The tensors that are not the model's own."""
        return tuple(dict.fromkeys([*self._whole, *self._changes]))

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that hold the tensors."""
        return tuple(dict.fromkeys(info.file for info in self.tensors.values()))

    def close(self) -> None:
        """Let go of all open files."""
        self._model.close()
        self._adapter.close()


class _Names:
    """What the adapter's names are in the model's files.

    An adapter has the names of the model in memory at the time it was made: those of the files, or those of the
    class in transformers, with or without a prefix.
    """

    def __init__(self, model: Checkpoint, adapter: Adapter) -> None:
        self._fan_in_fan_out = adapter.fan_in_fan_out
        files = {name: name for name in parameter_shapes(model.tensors)}
        found = find_model_class(model.config, model.tensors)
        self._transposed: frozenset[str] | None = None
        if isinstance(found, ModelClass):
            in_memory = names_in_memory(found, model)
            self._transposed = frozenset(in_memory[own] for own in found.transposed if own in in_memory)
            files = {**in_memory, **files}
        self._files = files
        wanted = {f"{change.module}.weight": change.shape for change in adapter.changes}
        wanted |= {name: info.shape for name, info in adapter.whole.items()}
        shapes = {own: model.tensors[name].shape for own, name in files.items()}
        self._renaming = _renaming(wanted, shapes, adapter)

    def of(self, name: str, shape: tuple[int, ...]) -> str:
        """The name of a parameter in the model's files; one that the model lacks keeps its own."""
        target = self._renaming.target(name, self._files)
        return next(self._renaming.candidates(name)) if target is None else self._files[target]

    def place(self, change: LowRank) -> tuple[str, bool]:
        """The weight that a change is for, and whether it is stored as (inputs, outputs)."""
        name = self.of(f"{change.module}.weight", change.shape)
        if change.embedding or len(change.shape) != 2:
            return name, False
        return name, self._fan_in_fan_out if self._transposed is None else name in self._transposed


def _renaming(names: Shapes, targets: Shapes, adapter: Adapter) -> Renaming:
    best = best_renamings(names, targets)
    if len(best) == 1:
        return best[0]
    # The towers of a model may be alike in all that was changed: the class then tells which one is meant.
    tower = next((prefix for kind, prefix in _TOWERS.items() if kind in adapter.model_class), None)
    if tower and all(targets.get(f"{tower}.{name}") == shape for name, shape in names.items()):
        return Renaming(add=tower)
    hint = f"if it was made for a tower alone, name the tower in front of it: owner/tower+{adapter.label}"
    raise ambiguous_names(adapter.label, best, hint=hint)


def _as_float64(info: TensorInfo) -> TensorInfo:
    # The tensor that an embedding's change is for may be saved along, but it is the model's own.
    nbytes = info.nbytes // info.dtype.itemsize * torch.float64.itemsize
    return replace(info, dtype=torch.float64, nbytes=nbytes, saved_in_adapter=False)
