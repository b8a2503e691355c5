"""Plan of a model with stacked layers: the place of every tensor in the models that it comes from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.spare import PREDICTION_COUNTS, is_for_prediction
from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.planning.class_names import CLASS_KEYS
from hubmerge.checkpoints.stacking.layer_facts import LayerOrigin, differing_kinds, layer_facts, nested, stacked_config
from hubmerge.checkpoints.stacking.layer_source import LayerSource, check_shapes, check_stacks, is_before
from hubmerge.checkpoints.stacking.stacked import Place, StackedCheckpoint
from hubmerge.checkpoints.stacking.stacks import Stack, find_stacks
from hubmerge.checkpoints.weight_names import WeightNames
from hubmerge.support.text import counted, listed


@dataclass(frozen=True)
class Run:
    """Consecutive layers of one model: its number, its first layer, and the layer after the last one."""

    model: int
    first: int
    end: int


@dataclass(frozen=True)
class Cut:
    """One slice: the layers of each source, of which `origin` lends names and kept tensors."""

    sources: tuple[Run, ...]
    origin: int = 0

    @property
    def length(self) -> int:
        """Number of layers of the stacked model."""
        return self.sources[0].end - self.sources[0].first


class LayersMissingError(Exception):
    """A source has fewer layers than a slice asks for: number of the slice, of the source, and its layers."""

    def __init__(self, piece: int, source: int, label: str, layers: int) -> None:
        super().__init__(label)
        self.piece, self.source, self.label, self.layers = piece, source, label, layers


@dataclass(frozen=True)
class Assembly:
    """A model with stacked layers, decided from headers alone.

    Attributes:
        cuts: the slices.
        stacks: the stacks of layers, with the number of layers of the stacked model.
        base: the place of every tensor of the model that lends names, shapes and kept tensors.
        slots: the places of the tensors of the first source of each slice, of the second ones, and so on.
        config: the config of the stacked model.
        place: the place of the model that lends the config.
        files: the names of its weight files.
        notes: what was decided, one sentence each.
    """

    cuts: tuple[Cut, ...]
    stacks: tuple[Stack, ...]
    base: Mapping[str, Place]
    slots: tuple[Mapping[str, Place], ...]
    config: Mapping[str, Any]
    place: Origin
    files: WeightNames
    notes: tuple[str, ...] = field(default=())

    @property
    def models(self) -> int:
        """The highest number of a model of the sources."""
        return max(run.model for cut in self.cuts for run in cut.sources)

    def base_of(self, base: Checkpoint, models: Mapping[int, Checkpoint]) -> StackedCheckpoint:
        """Return the model that lends names, shapes and kept tensors, from the opened models."""
        return StackedCheckpoint(self.place, self.base, {0: base, **models}, self.config, self.files)

    def slots_of(self, models: Mapping[int, Checkpoint]) -> list[StackedCheckpoint]:
        """Return the models of the first sources, of the second ones, and so on, from the opened models."""
        found = []
        for number, places in enumerate(self.slots):
            used = dict.fromkeys(place.model for place in places.values())
            origin = Origin(", ".join(dict.fromkeys(models[one].label for one in used)))
            config = with_classes_of(models[_run(self.cuts[-1], number).model].config, self.config)
            base = (self.place, self.base)
            found.append(StackedCheckpoint(origin, places, models, config, self.files, base))
        return found

    def needed(self, model: int) -> list[str]:
        """Return the names of the tensors of a model that are read, as they are in its files."""
        places = [place for places in (self.base, *self.slots) for place in places.values()]
        return list(dict.fromkeys(place.name for place in places if place.model == model))

    def position(self, name: str) -> tuple[int, float]:
        """Return the slice that a tensor is merged in, and its position among the layers of the slice, from 0 to 1."""
        layer = next((number for number in (stack.layer(name) for stack in self.stacks) if number is not None), None)
        if layer is None:
            return (0 if is_before(name, self.stacks) else len(self.cuts) - 1), 0.0
        for number, cut in enumerate(self.cuts):
            if layer < cut.length:
                return number, layer / (cut.length - 1) if cut.length > 1 else 1.0
            layer -= cut.length
        return len(self.cuts) - 1, 1.0


def assemble(
    base: Checkpoint, models: Mapping[int, Checkpoint], cuts: Sequence[Cut], *, stack: str | None = None
) -> Assembly:
    """Plan a model with stacked layers.

    Args:
        base: the model that lends config and tensor names; only its headers are needed.
        models: the models of the sources, by number from 1.
        cuts: the slices.
        stack: the start of the names of the layers that are cut; None for those of the language model.

    Raises:
        LayersMissingError: a slice has a range beyond the last layer of its source.
        CheckpointError: the layers have other tensors or shapes, or the class does not allow their order.
    """
    lent = find_stacks(base, stack)
    sources = {number: LayerSource(number, model, find_stacks(model, stack), lent) for number, model in models.items()}
    _check_ranges(cuts, sources)
    check_shapes(base, lent, sources)
    # Layers that predict further tokens follow the last layer of their model.
    ends = [(run.end, sources[run.model]) for run in cuts[-1].sources]
    further = all(end == source.layers and source.further for end, source in ends)
    left_out = [] if further else sorted({name for one in sources.values() for name in one.further})
    places = partial(_places, base, lent, sources, further=further)
    origins = [cut.sources[cut.origin] for cut in cuts]
    last = sources[origins[-1].model].model
    most = max(len(cut.sources) for cut in cuts)
    slots = [[_run(cut, slot) for cut in cuts] for slot in range(most)]
    return Assembly(
        cuts=tuple(cuts),
        stacks=tuple(replace(one, layers=sum(cut.length for cut in cuts)) for one in lent),
        base={**_of_base(base, lent, left_out), **places(origins)},
        slots=tuple(map(places, slots)),
        config=with_classes_of(last.config, _config(base, lent, sources, origins, without=bool(left_out))),
        place=base.origin,
        files=base.names,
        notes=(*_notes(base, sources, left_out), *_mixed_kinds(sources, origins, slots)),
    )


def _of_base(base: Checkpoint, lent: Sequence[Stack], left_out: Collection[str]) -> dict[str, Place]:
    """Return the places of the tensors outside the layers in the base model, for those that no source has."""
    outside = (name for name in base.tensors if all(stack.layer(name) is None for stack in lent))
    kept = (name for name in outside if name not in left_out and not is_for_prediction(name, frozenset()))
    return {name: Place(0, name) for name in kept}


def _run(cut: Cut, slot: int) -> Run:
    """Return a source of a slice; the first one if there are fewer."""
    return cut.sources[slot if slot < len(cut.sources) else 0]


def with_classes_of(owner: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the classes of the model that the head is from."""
    without = {key: value for key, value in config.items() if key not in CLASS_KEYS}
    return {**without, **{key: value for key, value in owner.items() if key in CLASS_KEYS}}


def _check_ranges(cuts: Sequence[Cut], sources: Mapping[int, LayerSource]) -> None:
    for source in sources.values():
        check_stacks(source)
    for number, cut in enumerate(cuts):
        for index, run in enumerate(cut.sources):
            source = sources[run.model]
            if run.end > source.layers:
                raise LayersMissingError(number, index, source.model.label, source.layers)


def _places(
    base: Checkpoint, lent: Sequence[Stack], sources: Mapping[int, LayerSource], runs: Sequence[Run], *, further: bool
) -> dict[str, Place]:
    """Return the places of the tensors of one run of layers for each slice, before, in and after the layers."""
    first, last = sources[runs[0].model], sources[runs[-1].model]
    outside = list(last.outside(further=further))
    before = {name: Place(first.number, own) for name, own in first.outside(further=False) if is_before(name, lent)}
    after = {name: Place(last.number, own) for name, own in outside if not is_before(name, lent)}
    heads = last.tied_heads(set(base.tensors) - before.keys() - after.keys())
    after |= {name: Place(last.number, owner) for name, owner in heads}
    layers: dict[str, Place] = {}
    target = 0
    for run in runs:
        for number in range(run.first, run.end):
            found = sources[run.model].layer(number, target)
            layers |= {name: Place(run.model, own) for name, own in found}
            target += 1
    if further:
        layers |= {name: Place(last.number, own) for name, own in last.further_layers(target)}
    return {**before, **layers, **after}


def _config(
    base: Checkpoint, lent: Sequence[Stack], sources: Mapping[int, LayerSource], runs: Sequence[Run], *, without: bool
) -> dict[str, Any]:
    """Return the config of the base model for the stacked layers."""
    config, origins = dict(base.config), _layers_of(runs)
    for index, stack in enumerate(lent):
        facts = {
            number: layer_facts(source.model.config, source.stacks[index])
            for number, source in sources.items()
            if number in {run.model for run in runs}
        }
        config = stacked_config(config, stack, facts, origins, base.origin)
        inner: Any = nested(config, stack.path)
        if without:
            inner.update({key: 0 for key in inner if PREDICTION_COUNTS.fullmatch(key)})
    return config


def _layers_of(runs: Sequence[Run]) -> list[LayerOrigin]:
    return [LayerOrigin(run.model, layer) for run in runs for layer in range(run.first, run.end)]


def _mixed_kinds(
    sources: Mapping[int, LayerSource], origins: Sequence[Run], slots: Sequence[Sequence[Run]]
) -> Iterator[str]:
    """Yield a note on layers of different kinds that are merged with each other."""
    if len(slots) == 1:
        return
    facts = {number: layer_facts(one.model.config, one.stacks[0]) for number, one in sources.items()}
    found = [key for runs in slots for key in differing_kinds(facts, _layers_of(origins), _layers_of(runs))]
    if found:
        keys = listed(list(dict.fromkeys(found)))
        yield f"layers of different kinds are merged with each other ({keys}): the config has those of the base model"


def _notes(base: Checkpoint, sources: Mapping[int, LayerSource], left_out: Sequence[str]) -> Iterator[str]:
    if left_out:
        number = counted(len(left_out), "tensor")
        yield f"left out: {number} for multi-token prediction, such as {left_out[0]}: the last slice ends before them"
    kind = base.config.get("model_type")
    others = [one.model.label for one in sources.values() if one.model.config.get("model_type") != kind]
    if others:
        yield f"{listed(others, most=3)}: another model_type than {base.label}, whose class the stacked model has"
