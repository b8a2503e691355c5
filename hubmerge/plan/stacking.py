"""Recipes that stack layers: their slices on the opened models, and the table that shows them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubmerge.checkpoints import Checkpoint
from hubmerge.checkpoints.planning.trial_load import LoadResult, load_without_values
from hubmerge.checkpoints.stacking.assembly import Assembly, Cut, LayersMissingError, Run, assemble
from hubmerge.errors import CheckpointError
from hubmerge.stream.stream import Stream
from hubmerge.support.text import listed
from merge_recipes import LayerPositions, LoadedRecipe, RecipeError, Slice
from merge_recipes.references import checkpoint_key

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


@dataclass(frozen=True)
class StackedRow:
    """Layers of the merged model, and those of each source: name of its entry, first and last layer."""

    first: int
    last: int
    sources: tuple[tuple[str, int, int], ...]

    def __str__(self) -> str:
        sources = ", ".join(f"{name} {first} to {last}" for name, first, last in self.sources)
        return f"{self.first} to {self.last}: {sources}"


def stack_layers(stream: Stream, base: Checkpoint, opened: Mapping[int, Checkpoint]) -> Assembly | None:
    """Return the plan of a model with stacked layers, None if all models are merged whole.

    Args:
        stream: the stream.
        base: the base model.
        opened: the other models, by number of their entries.

    Raises:
        CheckpointError: the layers do not fit together.
        RecipeError: a slice has layers that its model does not have.
    """
    models = {number: opened.get(number, base) for number in range(1, len(stream.entries) + 1)}
    cuts = _cuts(stream, models)
    if cuts is None:
        return None
    try:
        return assemble(base, models, cuts, stack=stream.recipe.stack)
    except LayersMissingError as error:
        raise _missing_layers(stream.loaded, error) from None


def _cuts(stream: Stream, models: Mapping[int, Checkpoint]) -> list[Cut] | None:
    """Return the slices of a recipe, None if they are the whole models."""
    recipe, layers = stream.recipe, stream.recipe.first_layers
    if recipe.slices:
        numbers = {checkpoint_key(entry.model): number for number, entry in enumerate(stream.entries, start=1)}
        return [_cut(piece, numbers, piece.place_of(recipe.base_model) or 0) for piece in recipe.slices]
    counts = [_layer_counts(model) for model in models.values()]
    if layers is None or all(layers in found for found in counts):
        return None
    if not stream.is_joint:
        raise _not_whole(stream.loaded, layers, counts)
    base = next((number for number in models if stream.is_base(number)), 1)
    return [Cut(tuple(Run(number, 0, layers) for number in models), base - 1)]


def _cut(piece: Slice, numbers: Mapping[tuple[str, ...], int], origin: int) -> Cut:
    runs = (Run(numbers[checkpoint_key(one.model)], *one.layer_range) for one in piece.sources)
    return Cut(tuple(runs), origin)


def _layer_counts(model: Checkpoint) -> tuple[int, ...]:
    return LayerPositions(model.tensors).counts


def _not_whole(loaded: LoadedRecipe, layers: int, counts: Sequence[Sequence[int]]) -> RecipeError:
    found = list(dict.fromkeys(number for numbers in counts for number in numbers))
    shown = " or ".join(map(str, found)) or "no"
    message = f"layers 0 to {layers} are not all layers of the models, which have {shown}"
    method = loaded.recipe.merge_method
    hint = (
        f"write `layer_range: [0, {found[0]}]`, or cut layers with a method that merges all at once" if found else None
    )
    return RecipeError(
        loaded.document.problem(("models", 0, "layer_range"), f"{message}; {method} merges whole models", hint)
    )


def _missing_layers(loaded: LoadedRecipe, error: LayersMissingError) -> RecipeError:
    start = ("slices", error.piece, "sources") if loaded.recipe.slices else ("models",)
    message = f"{error.label} has {error.layers} layers: expected a range within [0, {error.layers}]"
    return RecipeError(loaded.document.problem((*start, error.source, "layer_range"), message))


def stacked_rows(stream: Stream, assembly: Assembly | None) -> tuple[StackedRow, ...]:
    """Return the slices as a table: layers of the merged model, sources, layers of the sources."""
    rows, first = [], 0
    for cut in assembly.cuts if assembly is not None else ():
        names = (stream.entries[run.model - 1].name for run in cut.sources)
        ranges = ((run.first, run.end - 1) for run in cut.sources)
        sources = tuple((name, *ends) for name, ends in zip(names, ranges, strict=True))
        rows.append(StackedRow(first, first + cut.length - 1, sources))
        first += cut.length
    return tuple(rows)


def check_kinds(config: Mapping[str, Any], written: Mapping[str, tuple[int, ...]], base: Checkpoint) -> None:
    """Check that the class finds in stacked layers all that it finds in the layers of the base model.

    Args:
        config: the config of the stacked model.
        written: names and shapes of its tensors.
        base: the base model as it is.

    Raises:
        CheckpointError: a layer would be of another kind than its number gives.
    """
    result = load_without_values(config, written, base.origin)
    own = {name: info.shape for name, info in base.tensors.items()}
    before = load_without_values(base.config, own, base.origin)
    if not isinstance(result, LoadResult) or not isinstance(before, LoadResult):
        return
    shapes = [[one.name for one in found.mismatched] for found in (result, before)]
    problems = {
        "would lack": _new([*result.missing_layers, *result.missing], [*before.missing_layers, *before.missing]),
        "would have another shape of": _new(*shapes),
        "would not use": _new(
            [*result.unexpected_layers, *result.unexpected], [*before.unexpected_layers, *before.unexpected]
        ),
    }
    for what, names in problems.items():
        if names:
            raise CheckpointError(
                f"the layers cannot be stacked in this order: {result.class_name} {what} {listed(names, most=3)}",
                hint="choose layer ranges in which the kinds of the layers repeat as in the model",
                tensor=names[0],
            )


def _new(names: Sequence[str], before: Sequence[str]) -> list[str]:
    known = {_NUMBER.sub("*", name) for name in before}
    return [name for name in names if _NUMBER.sub("*", name) not in known]
