"""A model with an adapter, whose weights are computed when they are read, without a copy of the model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import torch

from hubmerge.checkpoints.adapters.adapter import Adapter, LowRank
from hubmerge.checkpoints.adapters.pipeline_adapter import PipelineAdapter
from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.memory_names import names_in_memory
from hubmerge.checkpoints.matching.names import Renaming, Shapes, ambiguous_names, best_renamings, parameter_shapes
from hubmerge.checkpoints.model_class.class_lookup import class_for_task
from hubmerge.checkpoints.model_class.model_class import ModelClass, find_model_class
from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.tensors import TensorInfo, describe_shape

_TOWERS = {"VisionModel": "vision_model", "TextModel": "text_model", "AudioModel": "audio_model"}
_OTHER_MODEL = "apply the adapter to the model it was trained on"


class AdaptedCheckpoint(Checkpoint):
    """The tensors of a model, under its names, with the changes of an adapter.

    A changed weight is W + scaling * B A, computed and returned in float64 whatever the model's dtype, so that no small
    change is rounded away before it is merged. A tensor that the model has under several names (a tied head, a shared
    block) gets the changes of all of them, as in `merge_and_unload` of peft. Tensors that the adapter has whole replace
    the model's. All others are the model's own, in their stored dtype.

    Attributes:
        adapter_files: the tensors in the adapter's file, under the names that they have there.

    Raises:
        CheckpointError: the adapter changes a tensor that the model does not have, or one of another shape.
    """

    def __init__(self, model: Checkpoint, adapter: Adapter | PipelineAdapter) -> None:
        self.adapter_files = adapter.files
        adapter = adapter.for_model(model)
        origin = replace(model.origin, label=f"{model.label}+{adapter.label}")
        names = _Names(model, adapter)
        self._model = model
        self._adapter = adapter
        self._whole = {names.of_whole(name): info for name, info in adapter.whole.items()}
        self._changes: dict[str, list[tuple[LowRank, bool]]] = {}
        tensors = dict(model.tensors)
        for name, info in self._whole.items():
            tensors[name] = replace(info, name=name, saved_in_adapter=True)
        for change in adapter.changes:
            name, transposed = names.place(change)
            _check_fits(change, tensors.get(name), adapter, model, transposed=transposed)
            for changed in names.tied_with(name):
                if adapter.ties_weights and changed in self._changes:
                    continue  # the change of the other name, saved again
                self._changes.setdefault(changed, []).append((change, transposed))
                tensors[changed] = _as_float64(tensors[changed])
        super().__init__(origin, tensors, model.config, {}, notes=(*model.notes, *adapter.notes), names=model.names)

    def has_equal_values(self, first: str, second: str) -> bool:
        """Return True if two tensors have equal values, as far as they can be read now."""
        if self._changes.get(first) != self._changes.get(second):
            return False
        one, other = self._whole.get(first), self._whole.get(second)
        if one is not None and other is not None:
            return self._adapter.files.has_equal_values(one.name, other.name)
        return one is other and self._model.has_equal_values(first, second)

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor with the adapter's change: in float64 if it is changed, else in its stored dtype."""
        whole = self._whole.get(name)
        tensor = self._model.read(name) if whole is None else self._adapter.read(whole)
        if name not in self._changes:
            return tensor
        changed = tensor.to(torch.float64)
        for change, transposed in self._changes[name]:
            product = self._adapter.product(change)
            changed = changed.add_(product.T if transposed else product)
        return changed

    def prepare(self, names: Iterable[str]) -> None:
        """Fetch those tensors of the model that are not on this machine."""
        self._model.prepare([name for name in names if name not in self._whole])

    def changed_from(self, origin: Origin) -> Collection[str]:
        """Return the names of the tensors that may differ from those of the model at `origin`."""
        return self.changed if origin == self._model.origin else self.tensors.keys()

    @property
    def model(self) -> Checkpoint:
        """The model without the adapter."""
        return self._model

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the tensors that differ from the model's."""
        return tuple(dict.fromkeys([*self._whole, *self._changes]))

    @property
    def trained_class(self) -> str | None:
        """The class of the model that the adapter was trained on, None if it is not known."""
        return self._adapter.model_class or class_for_task(self.config, self._adapter.task_type)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that contain the tensors."""
        return tuple(dict.fromkeys(info.file for info in self.tensors.values()))

    def close(self) -> None:
        """Close all files."""
        self._model.close()
        self._adapter.close()


def _check_fits(
    change: LowRank, target: TensorInfo | None, adapter: Adapter, model: Checkpoint, *, transposed: bool
) -> None:
    if target is None:
        raise adapter.files.origin.error(
            f"module {change.module!r} is not in the model {model.label}", hint=_OTHER_MODEL
        )
    shape = tuple(reversed(change.shape)) if transposed else change.shape
    if shape != target.shape:
        raise adapter.files.origin.error(
            f"the change of module {change.module!r} is {describe_shape(shape)}, but {target.name!r} of the model "
            f"{model.label} is {describe_shape(target.shape)}",
            hint=_OTHER_MODEL,
            tensor=target.name,
        )


class _Names:
    """The names in the model's files of the parameters that an adapter names.

    An adapter has the names of the model in memory at the time of its training: those of the files, or those of the
    class in transformers, with or without a prefix.
    """

    def __init__(self, model: Checkpoint, adapter: Adapter) -> None:
        self._fan_in_fan_out = adapter.fan_in_fan_out
        files = {name: name for name in parameter_shapes(model.tensors)}
        found = find_model_class(model.config, model.tensors)
        self._transposed: frozenset[str] | None = None
        self._tied: dict[str, list[str]] = {}
        tied: dict[str, str] = {}
        if isinstance(found, ModelClass):
            in_memory = names_in_memory(found, model)
            conv1d = {own for own in found.transposed if len(found.shapes[own]) == 2}
            self._transposed = frozenset(in_memory[own] for own in conv1d if own in in_memory)
            files = {**in_memory, **files}
            tied = self._tied_names(found.ties, files, model)
        self._files, self._with_tied = files, {**tied, **files}
        self._changed = {f"{change.module}.weight" for change in adapter.changes}
        names = {f"{change.module}.weight": change.shape for change in adapter.changes}
        names |= {name: info.shape for name, info in adapter.whole.items()}
        targets = {own: model.tensors[name].shape for own, name in self._with_tied.items()}
        parts = found.models if isinstance(found, ModelClass) else ()
        self._renaming = _renaming(names, targets, adapter, parts, self._with_tied)

    def _tied_names(self, ties: Mapping[str, str], files: Mapping[str, str], model: Checkpoint) -> dict[str, str]:
        """Return the names of tied parameters that the files lack, mapped to those that the files have instead."""
        groups: dict[str, list[str]] = {}
        for alias, owner in ties.items():
            groups.setdefault(owner, [owner]).append(alias)
        found: dict[str, str] = {}
        for group in groups.values():
            stored = list(dict.fromkeys(files[own] for own in group if own in files))
            if stored and all(model.has_equal_values(stored[0], other) for other in stored[1:]):
                self._tied |= dict.fromkeys(stored, stored)
                found |= {own: stored[0] for own in group if own not in files}
        return found

    def tied_with(self, name: str) -> list[str]:
        """Return a tensor of the model's files and all others that are tied to it."""
        return self._tied.get(name, [name])

    def in_model(self, name: str, *, tied: bool = True) -> str:
        """Return the name of a parameter in the model's files; one that the model lacks keeps its likeliest name.

        Args:
            name: the adapter's name of the parameter.
            tied: return the name of a tied parameter that the files have instead of it.
        """
        files = self._with_tied if tied else self._files
        target = self._renaming.target(name, files)
        return next(self._renaming.candidates(name)) if target is None else files[target]

    def of_whole(self, name: str) -> str:
        """Return the name of a tensor that the adapter has whole: trained, or below a low-rank change."""
        return self.in_model(name, tied=name in self._changed)

    def place(self, change: LowRank) -> tuple[str, bool]:
        """Return the name of the changed weight, and True if it is stored as (inputs, outputs)."""
        name = self.in_model(f"{change.module}.weight")
        if change.embedding or len(change.shape) != 2:
            return name, False
        return name, self._fan_in_fan_out if self._transposed is None else name in self._transposed


def _renaming(
    names: Shapes, targets: Shapes, adapter: Adapter, parts: Iterable[str], files: Mapping[str, str]
) -> Renaming:
    best = best_renamings(names, targets, parts)
    found = [[None if (own := one.target(name, files)) is None else files[own] for name in names] for one in best]
    if all(stored == found[0] for stored in found):  # names in memory and in files of the same tensors
        return best[0]
    # The towers of a model may have the same changed layers: the class then decides.
    tower = next((prefix for kind, prefix in _TOWERS.items() if kind in adapter.model_class), None)
    if tower and all(targets.get(f"{tower}.{name}") == shape for name, shape in names.items()):
        return Renaming(add=tower)
    hint = f"for an adapter of a tower alone, write the tower in front of it: owner/tower+{adapter.label}"
    raise ambiguous_names(adapter.files.origin, best, hint=hint)


def _as_float64(info: TensorInfo) -> TensorInfo:
    # An adapter may have the tensor of a changed embedding whole, but it is the model's own.
    nbytes = info.nbytes // info.dtype.itemsize * torch.float64.itemsize
    stored = info.model_dtype or info.dtype
    return replace(info, dtype=torch.float64, nbytes=nbytes, saved_in_adapter=False, model_dtype=stored)
