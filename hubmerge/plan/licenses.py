"""License of the merged model: which one it has, and where the licenses of the inputs do not go together.

The rules are simple on purpose. Inputs go together if all state one license, or if all licenses are permissive. In
every other case a person has to read the licenses, and states the license of the merged model in the recipe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hubmerge.errors import RecipeError
from hubmerge.hub.client import endpoint
from hubmerge.report.inputs import TOKENIZER
from hubmerge.report.licenses import NO_LICENSE, License
from hubmerge.report.report import RunReport
from hubmerge.stream.licenses import BASE_MODEL, InputLicense, read_licenses
from hubmerge.stream.sources import Source
from hubmerge.stream.stream import Stream
from hubmerge.support.text import listed
from merge_recipes import Publish
from merge_recipes.licenses import HUB_LICENSES, LICENSE_FILES, OTHER, Family, family_of

INPUTS_SHOWN = 3
"""Number of inputs that a sentence names for each license."""

INPUTS_LISTED = 12
"""Number of inputs that a plan names for each license."""

_FREE = frozenset({Family.PERMISSIVE, Family.UNKNOWN})


@dataclass(frozen=True)
class PlannedLicenses:
    """Licenses of the inputs and of the merged model.

    Attributes:
        inputs: The base model, then the checkpoints and adapters in the order of the steps.
        merged: License of the merged model, without identifiers if it is not known.
        notes: Sentences for the user: what is unknown, and conflicts for which the recipe states a license.
    """

    inputs: tuple[InputLicense, ...] = ()
    merged: License = NO_LICENSE
    notes: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """Yield the lines of a plan: the license of the merged model, and that of every input."""
        if not self.inputs:
            return
        yield f"license  {self.merged.text} for the merged model"
        for group in _groups(one for one in self.inputs if not one.revoked):
            names = listed([one.name for one in group], INPUTS_LISTED)
            yield f"         {group[0].license.text} ({group[0].license.family.value}): {names}"

    def to_dict(self) -> dict[str, Any]:
        """Return the licenses as plain JSON values."""
        return {
            "merged": self.merged.to_metadata(),
            "inputs": [
                {
                    "name": one.name,
                    "model": one.model,
                    "commit": one.source.commit,
                    **one.license.to_metadata(),
                    "kind": one.license.family.value,
                }
                for one in self.inputs
            ],
            "notes": list(self.notes),
        }

    def of_step(self, step: int) -> tuple[License, ...]:
        """Return the licenses of the checkpoint of an entry and of its adapter; those of the base model for 0."""
        return tuple(one.license for one in self.inputs if one.step == step)

    def of_tokenizer(self, name: str) -> tuple[License, ...]:
        """Return the license of the model that only lends its tokenizer, nothing if no licenses were read."""
        return tuple(one.license for one in self.inputs if one.name == f"{TOKENIZER}{name}")


NO_LICENSES = PlannedLicenses()
"""Licenses that were not read."""


def plan_licenses(stream: Stream, recorded: RunReport | None = None, *, refuse: bool = True) -> PlannedLicenses:
    """Read the licenses of all inputs, and decide on the license of the merged model.

    Args:
        stream: The stream.
        recorded: Report of finished steps.
        refuse: False if there is nothing to merge, so that conflicts are notes.

    Raises:
        RecipeError: The licenses do not go together, and the recipe publishes without stating a license. The error
            lists every conflict.
        HubError: A card cannot be read.
    """
    everything = read_licenses(stream, recorded)
    inputs = [one for one in everything if not one.revoked]
    publish = stream.recipe.publish
    merged = merged_license(publish, inputs[0].license, stream.base)
    found = list(conflicts(inputs))
    if found and refuse and publish is not None and publish.license is None:
        hint = (
            "read the licenses, then state that of the merged model, for example "
            f"`publish: {{repo: {publish.repo}, license: {_strictest(inputs)}}}`"
        )
        key = ("publish",)
        raise RecipeError([stream.loaded.document.problem(key, sentence, hint, at_key=True) for sentence in found])
    stated = f"; the recipe states {merged.text}" if publish is not None else ""
    notes = [f"warning: {sentence}{stated}" for sentence in found]
    if not found and publish is not None and publish.license and _is_looser(merged, inputs):
        others = _named((one for one in inputs if one.license.family not in _FREE), models=False)
        notes.append(f"warning: the recipe states {merged.text} for the merged model; inputs have {others}")
    unknown = [_unknown(one) for one in inputs if one.license.family is Family.UNKNOWN]
    if unknown and len(unknown) < len(inputs):
        notes.append(f"warning: license unknown: {listed(unknown, INPUTS_SHOWN)}")
    return PlannedLicenses(everything, merged, tuple(notes))


def merged_license(publish: Publish | None, base: License, source: Source) -> License:
    """Return the license of the merged model: that in the recipe, else that of the base model.

    Args:
        publish: The `publish` section of the recipe.
        base: License of the base model.
        source: The base model; a link to one of its files that is not copied becomes a web address.
    """
    if publish is None or publish.license is None:
        return _with_reachable_link(base, source)
    if base.identifiers == (publish.license,):
        base = _with_reachable_link(base, source)
        return License((publish.license,), publish.license_name or base.name, publish.license_link or base.link)
    return License((publish.license,), publish.license_name, publish.license_link)


def _with_reachable_link(base: License, source: Source) -> License:
    """Return the license of the base model without its files; a link names a file that is copied, or an address.

    The Hub refuses a card with an identifier that it does not list, so that such a license is not carried on.
    """
    if not set(base.identifiers) <= HUB_LICENSES.keys():
        return NO_LICENSE
    link = base.link
    if link in LICENSE_FILES and (link not in base.files or source.subfolder):
        address = f"{endpoint()}/{source.reference.path}/blob/{source.commit}/{link}"
        link = None if source.is_local else address
    return replace(base, link=link, files=())


def conflicts(inputs: Sequence[InputLicense]) -> Iterable[str]:
    """Yield one sentence for each reason why the licenses of inputs do not go together."""
    forbidden = [one for one in inputs if one.license.family is Family.NO_DERIVATIVES]
    if forbidden:
        yield f"the license does not allow changed versions, and a merged model is one: {_named(forbidden)}"
    known = [one for one in inputs if one.license.family is not Family.UNKNOWN]
    licenses = {one.license.key for one in known}
    if len(licenses) > 1 and any(one.license.family not in _FREE for one in known):
        yield f"the licenses do not go together: {_named(known)}"
    unnamed = [one for one in inputs if OTHER in one.license.identifiers and one.license.name is None]
    models = {(one.source.reference.path, one.source.commit) for one in unnamed}
    if unnamed and (len(models) > 1 or unnamed[0].name == BASE_MODEL):
        yield f"the license is `other` without a license_name, so its terms are not known: {_named(unnamed)}"


def _named(inputs: Iterable[InputLicense], *, models: bool = True) -> str:
    """Return "cc-by-nc-4.0 (non-commercial): local/a, local/b; mit (permissive): local/c", by license."""
    parts = []
    for group in _groups(inputs):
        shared = group[0].license
        names = f": {listed(list(dict.fromkeys(one.model for one in group)), INPUTS_SHOWN)}" if models else ""
        parts.append(f"{shared.text} ({shared.family.value}){names}")
    return "; ".join(parts)


def _groups(inputs: Iterable[InputLicense]) -> list[list[InputLicense]]:
    """Return the inputs by license, the most restrictive one first."""
    groups: dict[tuple[object, ...], list[InputLicense]] = {}
    for one in inputs:
        groups.setdefault(one.license.key, []).append(one)
    return sorted(groups.values(), key=lambda group: -group[0].license.family.strictness)


def _unknown(one: InputLicense) -> str:
    """Return the model of an input with an unknown license, and what its card states."""
    stated = set(one.license.identifiers) - {Family.UNKNOWN.value}
    return f"{one.model} (its card states {one.license.text})" if stated else one.model


def _strictest(inputs: Sequence[InputLicense]) -> str:
    """Return the identifier of the most restrictive license, with its name and link, as keys of a recipe."""
    strictest = max((one.license for one in inputs), key=lambda stated: stated.family.strictness)
    if OTHER not in strictest.identifiers:
        return max(strictest.identifiers, key=lambda identifier: family_of([identifier]).strictness)
    name, link = strictest.name or "my-license", strictest.link or "LICENSE"
    return f"{OTHER}, license_name: {name}, license_link: {link}"


def _is_looser(merged: License, inputs: Sequence[InputLicense]) -> bool:
    strictest = max(one.license.family.strictness for one in inputs)
    return merged.family.strictness < strictest and strictest > Family.PERMISSIVE.strictness


def license_lines(licenses: PlannedLicenses) -> Iterator[str]:
    """Yield one line for the license of the merged model, and one for those of the inputs unless all have this one."""
    if not licenses.inputs:
        return
    groups = _groups(one for one in licenses.inputs if not one.revoked)
    if len(groups) == 1 and groups[0][0].license.key == licenses.merged.key:
        yield f"license  {licenses.merged.text} for the merged model, as of all inputs"
        return
    yield f"license  {licenses.merged.text} for the merged model"
    inputs = (f"{group[0].license.text} ({listed([one.name for one in group], INPUTS_SHOWN)})" for group in groups)
    yield f"         inputs: {', '.join(inputs)}"
