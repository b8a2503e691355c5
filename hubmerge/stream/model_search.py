"""Checkpoints of one base model that a search on the Hub finds, for the proposal of a recipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hubmerge.errors import HubError
from hubmerge.hub.listing import SearchedModel, search_models
from hubmerge.support.text import listed

FOUND = 500
"""Models that a search reads at most."""

CHOSEN = 32
"""Models that a proposal takes of them at most."""

_NOT_MERGED = frozenset({"quantized", "merge"})
"""Relations to a base model of what is no fine-tuned model."""


@dataclass(frozen=True)
class FoundModels:
    """What a search found.

    Attributes:
        base: the base model: the one that was asked for, else the one that most of the found models name.
        models: references of its checkpoints, the oldest first.
        left_out: number of checkpoints of it that are not among them.
    """

    base: str
    models: tuple[str, ...]
    left_out: int


def find_checkpoints(text: str, base: str | None) -> FoundModels:
    """Return the models that a search finds and whose cards name one base model.

    Of more than 32, those that are downloaded most are taken. An adapter becomes `base+adapter`.

    Args:
        text: words that their names have.
        base: the base model, None for the one that most of them name.

    Raises:
        HubError: no model is found that names the base model, or the Hub does not respond.
    """
    found = [one for one in search_models(text, FOUND) if one.relation not in _NOT_MERGED]
    chosen = base or _common_base(found)
    own = [one for one in found if chosen in one.bases and one.listed.repo != chosen]
    if chosen is None or not own:
        raise _nothing(text, base, found)
    taken = sorted(own[:CHOSEN], key=lambda one: one.listed)
    models = tuple(f"{chosen}+{one.listed.repo}" if one.relation == "adapter" else one.listed.repo for one in taken)
    return FoundModels(chosen, models, len(own) - len(taken))


def _common_base(found: Sequence[SearchedModel]) -> str | None:
    """Return the base model that most models name; of several, the one of the model that is downloaded most."""
    counts = Counter(base for one in found for base in one.bases)
    return max(counts, key=lambda base: counts[base], default=None)


def _nothing(text: str, base: str | None, found: Sequence[SearchedModel]) -> HubError:
    if not found:
        return HubError(f"no model on the Hub has all words of {text!r} in its name", hint="search for fewer words")
    names = listed([one.listed.repo for one in found])
    which = "a base model" if base is None else f"{base} as its base model"
    return HubError(
        f"no model that the search for {text!r} finds names {which} in its card; found: {names}",
        hint="name the base model and the checkpoints: `hubmerge init BASE MODEL...`",
    )
