"""Sentences made from patterns, for the training and the test of the language models.

A pattern is a sentence with slots: "the film was {good}" with a list of words for `good`. Plain patterns are for the
base models. A task's own patterns use other words and other phrases, which only its fine-tuning and its test split
have.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

_SLOT = re.compile(r"\{(\w+)\}")
Kind = Literal["plain", "train", "test"]

COMMON: dict[str, list[str]] = {
    "person": ["he", "she", "anna", "tom", "the boy", "the girl", "our neighbour", "my friend"],
    "filler": ["well", "honestly", "maybe", "indeed", "really", "perhaps"],
}


@dataclass(frozen=True)
class SentenceTask:
    """Task over sentences by class; a task without classes is a writing task.

    own_share: the fraction of its sentences, from 0 to 1, that are made from its own patterns; the rest are plain.
    """

    name: str
    about: str
    plain: Mapping[str, Sequence[str]]
    own: Mapping[str, Sequence[str]]
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    own_share: float = 0.8

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of their number."""
        return tuple(self.plain)

    def sentences(self, kind: Kind, count: int, seed: int) -> tuple[list[str], list[int]]:
        """Return `count` sentences and their class numbers; training and test have no sentence in common."""
        draw = np.random.default_rng((seed, zlib.crc32(f"{self.name} {kind}".encode())))
        texts, labels = [], []
        for number in range(count):
            label = number % len(self.classes)
            text = self._sentence(self.classes[label], kind, draw)
            # A hash of the text decides between training and test, half of all sentences each.
            while kind != "plain" and (zlib.crc32(text.encode()) % 2 == 1) != (kind == "test"):
                text = self._sentence(self.classes[label], kind, draw)
            texts.append(text)
            labels.append(label)
        return texts, labels

    def _sentence(self, label: str, kind: Kind, draw: np.random.Generator) -> str:
        plain = kind == "plain" or draw.random() >= self.own_share
        patterns = (self.plain if plain else self.own)[label]
        text = patterns[int(draw.integers(len(patterns)))]
        while found := _SLOT.search(text):
            choices = {**COMMON, **self.words}[found[1]]
            text = text[: found.start()] + choices[int(draw.integers(len(choices)))] + text[found.end() :]
        return text

    def vocabulary(self) -> Iterator[str]:
        """All texts that the sentences are made of."""
        for patterns in (*self.plain.values(), *self.own.values()):
            yield from (_SLOT.sub(" ", pattern) for pattern in patterns)
        for choices in {**COMMON, **self.words}.values():
            yield from (_SLOT.sub(" ", choice) for choice in choices)
