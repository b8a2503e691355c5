"""Rows of the merged model's embeddings: for each model its own row of each token, or where else the row comes from."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hubmerge.checkpoints.vocabulary.union import Part
from hubmerge.errors import CheckpointError

Donors = tuple[tuple[int, int], ...]
"""Rows whose mean is taken: number of a model, and number of a row there. Without any it is zero."""


@dataclass(frozen=True)
class TokenRule:
    """What a recipe says about the row of a token.

    Attributes:
        kind: `row` for the row of a token of a model, `zero` for zeros, `default` for the row by the general rule.
        model: the number of the model.
        token: the token, or its number in the model.
        force: True if the models that have the token take this row too.
    """

    kind: Literal["row", "zero", "default"] = "default"
    model: int = 0
    token: str | int = 0
    force: bool = False


@dataclass(frozen=True)
class RowPlan:
    """Rows of the merged model, from those of all models.

    Attributes:
        tokens: the tokens of the merged model with their numbers.
        rows: the number of rows; those without a token get the mean of all others.
        places: for each model the row of each token there, -1 where it has none.
        donors: the rows of tokens that some models lack, or that all models get.
        forced: the tokens, by number, whose row all models get from `donors`.
        own_rows: the number of rows of each model.
    """

    tokens: Mapping[str, int]
    rows: int
    places: tuple[Sequence[int], ...]
    donors: Mapping[int, Donors]
    forced: frozenset[int]
    own_rows: tuple[int, ...]

    def keeps(self, model: int) -> bool:
        """Return True if the rows of a model stay as they are."""
        places = self.places[model]
        in_order = all(place == number for number, place in enumerate(places))
        return in_order and not self.forced and self.own_rows[model] == self.rows == len(self.tokens)

    def in_order(self, model: int) -> bool:
        """Return True if the rows of a model keep their order in the merged model, so that they are read in pieces."""
        own = [place for place in self.places[model] if place >= 0]
        return all(one <= other for one, other in itertools.pairwise(own))

    def receives(self, model: int) -> bool:
        """Return True if a model gets rows that are not its own."""
        places = self.places[model]
        return self.rows > len(self.tokens) or bool(self.forced) or any(places[number] < 0 for number in self.donors)


def plan_rows(
    tokens: Mapping[str, int],
    parts: Sequence[Part],
    rules: Mapping[str, TokenRule],
    *,
    has_base: bool,
    multiple: int | None = None,
) -> RowPlan:
    """Decide where each row of the merged model comes from.

    Args:
        tokens: the tokens of the merged model with their numbers.
        parts: the tokenizers of all models, the base model's first.
        rules: what the recipe says about single tokens.
        has_base: True if a token that the base model has gets the base model's row in the models that lack it.
        multiple: the number of rows is a multiple of this.

    Raises:
        CheckpointError: the recipe takes the row of a token that the model lacks.
    """
    count = 1 + max(tokens.values(), default=-1)
    rows = count if multiple is None else -(-count // multiple) * multiple
    places = tuple(_places(tokens, part, count) for part in parts)
    donors: dict[int, Donors] = {}
    forced = set()
    for token, number in tokens.items():
        having = [(model, place[number]) for model, place in enumerate(places) if place[number] >= 0]
        rule = rules.get(token, TokenRule())
        if rule.force:
            forced.add(number)
        if rule.force or len(having) < len(parts):
            donors[number] = _donors(token, rule, having, parts, has_base=has_base)
    return RowPlan(tokens, rows, places, donors, frozenset(forced), tuple(part.rows for part in parts))


def _places(tokens: Mapping[str, int], part: Part, count: int) -> Sequence[int]:
    found, own = array("q", [-1]) * count, part.tokenizer.tokens
    for token, number in tokens.items():
        place = own.get(token, -1)
        found[number] = place if place < part.rows else -1
    return found


def _donors(
    token: str, rule: TokenRule, having: Sequence[tuple[int, int]], parts: Sequence[Part], *, has_base: bool
) -> Donors:
    if rule.kind == "zero":
        return ()
    if rule.kind == "row":
        return ((rule.model, _row_of(rule.token, parts[rule.model], token)),)
    if has_base and having and having[0][0] == 0:
        return (having[0],)
    return tuple(having)


def _row_of(source: str | int, part: Part, token: str) -> int:
    """Return the row that a recipe names for a token."""
    number = source if isinstance(source, int) else part.tokenizer.tokens.get(source)
    if number is not None and number < part.rows:
        return number
    what = f"{source!r} is not one of its tokens" if number is None else f"it has {part.rows} rows, and no row {number}"
    raise CheckpointError(
        f"{part.tokenizer.label}: {what}; the recipe takes this row for {token!r}",
        hint="name a model that has the token, or write `source: {kind: zero}`",
    )


def rule_texts(plan: RowPlan, labels: Sequence[str], named: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """Yield each token that not all models have a row of, and where its row comes from, in words.

    Args:
        plan: the rows.
        labels: the names of the models.
        named: the tokens that the recipe names. They come first, then those that the base model lacks.
    """
    names = {number: token for token, number in plan.tokens.items()}
    for number in sorted(plan.donors, key=lambda one: (names[one] not in named, plan.places[0][one] >= 0, one)):
        rows, token = plan.donors[number], names[number]
        others = [labels[model] for model, _ in rows]
        if not rows:
            text = "zeros"
        elif len(rows) > 1:
            text = f"mean of {len(rows)} models" if len(rows) > 3 else f"mean of {', '.join(others)}"
        else:
            text = others[0]
            if plan.places[rows[0][0]][number] != rows[0][1]:
                text += f", row {rows[0][1]}"
        yield token, f"{text}, for all models" if number in plan.forced else text
