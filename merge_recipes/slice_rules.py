"""Checks of slices, and each slice as a recipe of its own that merges its sources as whole models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from merge_recipes.errors import KeyPath, Problem
from merge_recipes.read_yaml import Document
from merge_recipes.references import checkpoint_key
from merge_recipes.rewriting import Rewriting
from merge_recipes.rules import items_at, mapping_at, reference_in


def slice_problems(document: Document) -> Iterator[Problem]:
    """Yield the problems of layer ranges: an empty one, different lengths, and a model that is in a slice twice."""
    if mapping_at(document).get("stack") is not None and "slices" not in mapping_at(document):
        yield document.problem(("stack",), "this key names the layers that slices cut, and there are no slices")
    for path, piece in items_at(document, "slices"):
        sources = list(_sources(path, piece))
        yield from _repeated_models(document, sources)
        yield from _ranges(document, sources)


def _sources(path: KeyPath, piece: dict[str, Any]) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    sources = piece.get("sources")
    for index, source in enumerate(sources if isinstance(sources, list) else []):
        if isinstance(source, dict):
            yield (*path, "sources", index), source


def _repeated_models(document: Document, sources: list[tuple[KeyPath, dict[str, Any]]]) -> Iterator[Problem]:
    seen: set[tuple[str, ...]] = set()
    for place, source in sources:
        reference = reference_in(source.get("model"))
        if reference is not None:
            if checkpoint_key(reference) in seen:
                hint = "write the other layers into a slice of their own"
                yield document.problem((*place, "model"), "this model is in the slice twice", hint)
            seen.add(checkpoint_key(reference))


def _ranges(document: Document, sources: list[tuple[KeyPath, dict[str, Any]]]) -> Iterator[Problem]:
    lengths: list[int] = []
    for path, source in sources:
        place, ends = (*path, "layer_range"), source.get("layer_range")
        if not isinstance(ends, list) or [type(end) for end in ends] != [int, int] or min(ends) < 0:
            continue  # a value of a wrong type or below 0 is a problem of its own
        if ends[0] >= ends[1]:
            yield document.problem(place, f"the range {ends} is empty: expected [first, last + 1]")
            continue
        lengths.append(ends[1] - ends[0])
        if lengths[-1] != lengths[0]:
            message = f"{lengths[-1]} layers of this source meet {lengths[0]} of the first one"
            yield document.problem(place, message, "write ranges of one length in a slice")


def parts_to_check(document: Document) -> list[Document]:
    """Return the document, or one document for each slice, whose `models` are the sources of the slice.

    Levels of parameters and the base model of the slice are those of the top level there.
    """
    found = [slice_document(document, path, piece) for path, piece in items_at(document, "slices")]
    return [one for one in found if one is not None] or [document]


def slice_document(document: Document, path: KeyPath, piece: dict[str, Any]) -> Document | None:
    """Return a slice as a document that merges its sources; None if it has none."""
    sources = [source for _, source in _sources(path, piece)]
    if not sources:
        return None
    data = {key: value for key, value in document.data.items() if key != "slices"}
    data["models"] = [{key: value for key, value in source.items() if key != "layer_range"} for source in sources]
    origins = {moved: origin for moved, origin in document.origins.items() if moved[0] != "models"}
    rewriting = Rewriting(document, data, origins)
    rewriting.move((*path, "sources"), ("models",))
    if piece.get("base_model") is not None:
        data["base_model"] = piece["base_model"]
        rewriting.move((*path, "base_model"), ("base_model",))
    rewriting.add_level((*path, "parameters"), piece.get("parameters"))
    return rewriting.rewritten()


def bases_of_slices(document: Document, method: str) -> Iterator[Problem]:
    """Yield a problem for each slice without the base model that its recipe names.

    Args:
        document: a slice, as `slice_document` returns it.
        method: the merge method, whose task vectors start from the base model.
    """
    base = mapping_at(document).get("base_model")
    reference = reference_in(base)
    if reference is None:
        return
    keys = [reference_in(entry.get("model")) for _, entry in items_at(document, "models")]
    if checkpoint_key(reference) not in [checkpoint_key(one) for one in keys if one is not None]:
        message = f"the base model {base} is not among the sources of this slice, and {method} starts from it"
        hint = f"add the source {{model: {base}, layer_range: [...]}}, or give the slice a `base_model` of its own"
        yield document.problem(("models",), message, hint)
