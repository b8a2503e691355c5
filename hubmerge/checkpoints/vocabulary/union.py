"""Changes of a tokenizer: tokens without a row removed, tokens of other tokenizers and single tokens added.

New tokens get numbers after all others. They are part of the model of the tokenizer, with the merges that make them;
those that another tokenizer finds before it splits a text are found so here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hubmerge.checkpoints.vocabulary.tokenizer import Tokenizer
from hubmerge.errors import CheckpointError

_LOWEST = -1e4
"""Score of a token that the model of a Unigram tokenizer never chooses: it is found before the text is split."""

PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
"""Settings of a token that a recipe adds."""


@dataclass(frozen=True)
class Part:
    """A tokenizer of one of the models.

    Attributes:
        tokenizer: the tokenizer.
        rows: the number of rows in the embeddings of the model. Later tokens have no row.
    """

    tokenizer: Tokenizer
    rows: int

    @property
    def tokens(self) -> list[str]:
        """The tokens that have a row, by number."""
        tokens = self.tokenizer.tokens
        return sorted((token for token, number in tokens.items() if number < self.rows), key=tokens.__getitem__)


def without_unused(part: Part) -> Tokenizer:
    """Return a tokenizer without the tokens that have no row in the embeddings of its model."""
    tokenizer = part.tokenizer
    if tokenizer.stored is not None:
        known = {token: number for token, number in tokenizer.tokens.items() if number < part.rows}
        own = replace(tokenizer, content=tokenizer.stored)
        if known == {token: number for token, number in own.tokens.items() if number < part.rows}:
            tokenizer = own
    unused = {token for token, number in tokenizer.tokens.items() if number >= part.rows}
    if not unused:
        return tokenizer
    model = dict(tokenizer.content["model"])
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        model["vocab"] = vocabulary[: part.rows]
    else:
        model["vocab"] = {token: number for token, number in vocabulary.items() if token not in unused}
    if "merges" in model:
        model["merges"] = [one for one in model["merges"] if unused.isdisjoint(_made_of(one))]
    added = [token for token in tokenizer.content.get("added_tokens") or () if token["content"] not in unused]
    content = {**tokenizer.content, "model": model, "added_tokens": added}
    return replace(tokenizer, content=content, changed=True, stored=None)


def union(first: Tokenizer, others: Sequence[Part]) -> Tokenizer:
    """Return the first tokenizer with the tokens that the others have and it lacks.

    Raises:
        CheckpointError: a tokenizer is of another kind.
    """
    for part in others:
        if part.tokenizer.kind != first.kind:
            raise CheckpointError(
                f"{part.tokenizer.label}: its tokenizer is {part.tokenizer.kind}, expected {first.kind} as that of "
                f"{first.label}: tokenizers of different kinds have no union",
                hint="write `tokenizer_source: base` in the recipe, or remove the model",
            )
    extension = _Extension(first)
    for part in others:
        own = [token for token in part.tokens if token not in part.tokenizer.added]
        extension.add(own, part.tokenizer)
    for part in others:
        for token in part.tokens:
            settings = part.tokenizer.added.get(token)
            if settings is not None:
                extension.find_before(token, settings)
    return extension.result()


def with_tokens(tokenizer: Tokenizer, tokens: Iterable[str], parts: Sequence[Part]) -> Tokenizer:
    """Return a tokenizer with further tokens, with the settings that they have in the first tokenizer that has them."""
    extension = _Extension(tokenizer)
    for token in tokens:
        if token not in tokenizer.tokens:
            known = (part.tokenizer.added.get(token) for part in parts)
            extension.find_before(token, next(filter(None, known), PLAIN))
    return extension.result()


@dataclass
class _Extension:
    tokenizer: Tokenizer
    new: dict[str, int] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    merges: list[Any] = field(default_factory=list)
    added: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.next = max([len(self.tokenizer.tokens), *(number + 1 for number in self.tokenizer.tokens.values())])

    def number(self, token: str) -> int:
        """Return the number of a token, a new one if it is new."""
        known = self.tokenizer.tokens.get(token, self.new.get(token))
        if known is not None:
            return known
        self.new[token] = self.next
        self.next += 1
        return self.new[token]

    def add(self, tokens: Sequence[str], source: Tokenizer) -> None:
        """Add the tokens of the model of another tokenizer, with the merges that make them."""
        new = {token for token in tokens if token not in self.tokenizer.tokens and token not in self.new}
        for token in tokens:
            self.number(token)
        model = source.content["model"]
        if isinstance(model["vocab"], list):
            self.scores |= {str(token): score for token, score in model["vocab"] if token in new}
        known = {*self.tokenizer.tokens, *self.new}
        for one in model.get("merges") or ():
            *parts, made = _made_of(one)
            if made in new and known.issuperset(parts):
                self.merges.append(parts)

    def find_before(self, token: str, settings: Mapping[str, Any]) -> None:
        """Add a token that is found before the text is split; keep its settings if it is one already."""
        if token not in self.tokenizer.added and token not in self.added:
            self.added[token] = {"id": self.number(token), "content": token, **{key: settings[key] for key in PLAIN}}

    def result(self) -> Tokenizer:
        if not (self.new or self.added):
            return self.tokenizer
        content = self.tokenizer.content
        model = dict(content["model"])
        everything = self.tokenizer.tokens | self.new
        if isinstance(model["vocab"], list):
            model["vocab"] = self._list(model["vocab"], everything)
        else:
            # Numbers of added tokens that the model lacks follow from their order, and change if the model grows.
            model["vocab"] = {**model["vocab"], **{token: everything[token] for token in self._missing(model["vocab"])}}
        if self.merges:
            old = [_made_of(one)[:2] if isinstance(one, str) else list(one) for one in model["merges"]]
            model["merges"] = [*old, *self.merges]
        added = [*(content.get("added_tokens") or ()), *self.added.values()]
        found = {**content, "model": model, "added_tokens": sorted(added, key=lambda token: int(token["id"]))}
        return replace(self.tokenizer, content=found, changed=True, stored=None)

    def _missing(self, vocabulary: Mapping[str, int]) -> list[str]:
        everything = self.tokenizer.tokens | self.new
        return sorted((token for token in everything if token not in vocabulary), key=everything.__getitem__)

    def _list(self, vocabulary: Sequence[Any], everything: Mapping[str, int]) -> list[Any]:
        """Return the vocabulary of a Unigram tokenizer, in which the number of a token is its place."""
        by_number = {number: token for token, number in everything.items()}
        further = [
            by_number.get(number, f"<no token {number}>") for number in range(len(vocabulary), 1 + max(by_number))
        ]
        return [*vocabulary, *([token, self.scores.get(token, _LOWEST)] for token in further)]


def _made_of(merge: Any) -> list[str]:
    """Return the two parts of a merge, and what they make."""
    parts = merge.split(" ") if isinstance(merge, str) else list(merge)
    return [*parts, "".join(parts)]
