"""Checks that streams can be combined, before any state is downloaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hubmerge.combining.part import Part, check_state
from hubmerge.errors import UsageError
from hubmerge.methods import METHODS, Method, method_of
from hubmerge.methods.readers import saved_name
from hubmerge.stream.sources import Source, fetch_folder, files_of
from hubmerge.support.hashing import file_digest
from hubmerge.support.text import listed
from merge_recipes import LockedModel

NAMES_LISTED = 5
"""Number of entries that a message names."""


def check_parts(parts: Sequence[Part]) -> None:
    """Check that streams have one base model and states that add up.

    Raises:
        UsageError: They do not; the message says why.
    """
    if len(parts) < 2:
        raise UsageError("one stream has nothing to be combined with", hint="name two or more repos or folders")
    for part in parts:
        _check_method(part)
    first = parts[0]
    for index, part in enumerate(parts[1:], start=1):
        if any(part.report.seal == other.report.seal for other in parts[:index]):
            raise UsageError(f"{part.label} is named twice", hint="name each stream once", **part.place)
        _check_state_kind(first, part)
        _check_base(first, part)
        _check_settings(first, part)


def fold_of(part: Part) -> Method:
    """Return the method of a stream.

    Raises:
        UsageError: It merges all models at once.
    """
    method = method_of(part.recipe)
    if isinstance(method, Method) and not part.report.is_joint:
        return method
    raise UsageError(
        f"{part.label}: {part.recipe.merge_method} merged all models at once: there is no state to add",
        hint=f"merge the stream with one of {_adding()}",
        **part.place,
    )


def duplicates_of(parts: Sequence[Part]) -> list[tuple[Part, str, Part, str]]:
    """Return the checkpoints that are merged in two streams: the first stream with its entry, the later one with its.

    Two checkpoints are equal if their commits are, so that a copy of a repo counts too.
    """
    seen: dict[tuple[object, ...], tuple[Part, str]] = {}
    found = []
    for part in parts:
        own = {name: _identity(model) for name, model in part.merged().items()}
        found += [(*seen[key], part, name) for name, key in own.items() if key in seen]
        for name, key in own.items():
            seen.setdefault(key, (part, name))
    return found


def check_no_duplicates(parts: Sequence[Part]) -> None:
    """Check that no checkpoint is merged in two streams.

    Raises:
        UsageError: One is; the message names it.
    """
    found = duplicates_of(parts)
    if found:
        names = [f"{name} of {part.label} is {other} of {first.label}" for first, other, part, name in found]
        raise UsageError(
            f"merged twice: {listed(names, NAMES_LISTED)}",
            hint="add `--duplicates subtract` to count each once, which reads these checkpoints",
            **found[0][2].place,
        )


def check_states(parts: Sequence[Part]) -> None:
    """Check that the states of all streams are there, without downloading them.

    Raises:
        HubError: One is not.
    """
    for part in parts:
        check_state(part)


def _check_method(part: Part) -> None:
    method = fold_of(part)
    if part.report.stages:
        raise UsageError(
            f"{part.label} merges models that other documents of its recipe make: they have no commits that a combined "
            "stream could name",
            hint="publish these models first, and merge them by their repos",
            **part.place,
        )
    if not method.adds:
        raise UsageError(
            f"{part.label}: states of {method.name} cannot be added: what a checkpoint added depends on those merged "
            "before it",
            hint=f"merge the streams with one of {_adding()}",
            **part.place,
        )


def _adding() -> str:
    return ", ".join(method.name for method in METHODS if method.adds)


def _check_state_kind(first: Part, part: Part) -> None:
    kinds = [saved_name(fold_of(each)) for each in (first, part)]
    if kinds[0] != kinds[1]:
        raise UsageError(
            f"{part.label} has a state of {kinds[1]}, {first.label} one of {kinds[0]}: only states of one kind add up",
            hint="merge both streams with one method",
            **part.place,
        )
    tensors = [each.report.steps[-1].tensors for each in (first, part)]
    counts = [(one.weight_matrices, one.other_tensors, one.averaged) for one in tensors]
    if counts[0] != counts[1]:
        shown = [f"{one[0]} weight matrices, {one[1]} other tensors, {one[2] or 0} statistics" for one in counts]
        raise UsageError(
            f"{part.label} merged {shown[1]}; {first.label} merged {shown[0]}",
            hint="give both streams the same `tensors`, and checkpoints with the same tensors",
            **part.place,
        )


def _check_base(first: Part, part: Part) -> None:
    ours, theirs = first.lock.base_model, part.lock.base_model
    if _identity(ours) == _identity(theirs) or _weights(first.stream.base) == _weights(part.stream.base):
        return
    raise UsageError(
        f"{part.label} has the base model {theirs.label}, {first.label} has {ours.label}: task vectors of two base "
        "models do not add up",
        hint="merge the streams into one base model at one commit; `hubmerge lock` pins it",
        **part.place,
    )


def _check_settings(first: Part, part: Part) -> None:
    settings: list[Mapping[str, object]] = [
        {"dtype": one.dtype, "state_dtype": one.state_dtype, "tensors": one.tensors.model_dump(mode="json")}
        for one in (first.recipe, part.recipe)
    ]
    for key, value in settings[0].items():
        if settings[1][key] != value:
            raise UsageError(
                f"{part.label} was merged with another `{key}` than {first.label}: {settings[1][key]}, not {value}",
                hint=f"merge both streams with the same `{key}`",
                **part.place,
            )


def _identity(model: LockedModel) -> tuple[object, ...]:
    adapter = model.reference.adapter
    folders = (model.reference.subfolder, None if adapter is None else adapter.subfolder)
    return (model.commit, model.adapter_commit, *folders)


def _weights(source: Source) -> frozenset[str]:
    """Return the digests of the weight files of a model."""
    folder = fetch_folder(source) if source.is_local else None
    found = (file for file in files_of(source) if not file.path.endswith(".json"))
    return frozenset(file.digest if folder is None else file_digest(folder / file.path) for file in found)
