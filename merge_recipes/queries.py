"""Items of `models` that stand for checkpoints by what the Hub lists: by author and name, or by collection.

Which checkpoints they are is asked of the Hub when the recipe is locked; here they are only read and checked.
"""

from __future__ import annotations

import fnmatch
import re

from pydantic import field_validator

from merge_recipes.errors import InvalidReferenceError, shown
from merge_recipes.record import Record, Text

ENTRY, QUERY, COLLECTION = "<entry>", "<query>", "<collection>"
"""Which kind of item of `models` is meant; the brackets keep them apart from keys in a key path."""

_QUERY = re.compile(r"(?P<author>[A-Za-z0-9][A-Za-z0-9._-]*)/(?P<name>[A-Za-z0-9._*?-]+)")
_COLLECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


class ModelQuery(Record):
    """All models of an author whose names fit a pattern, in the order in which they were made on the Hub."""

    query: Text
    """author/pattern, where * stands for any characters and ? for one, for example me/clip-vit-*."""
    tags: tuple[Text, ...] = ()
    """Only models that carry all of these tags."""

    @field_validator("query")
    @classmethod
    def _check_query(cls, query: str) -> str:
        match = _QUERY.fullmatch(query)
        if match is None:
            raise InvalidReferenceError(
                f"{shown(query)} is not a query: expected author/pattern", "for example me/clip-vit-*"
            )
        if not {"*", "?"} & set(match["name"]):
            raise InvalidReferenceError(
                f"{shown(query)} is one repo, not a query: a pattern has * or ?", f"write `model: {query}`"
            )
        return query

    @property
    def author(self) -> str:
        """The user or organization whose models are listed."""
        return self.query.partition("/")[0]

    @property
    def literal(self) -> str:
        """The beginning of the name up to the first * or ?; it may be empty."""
        return re.split(r"[*?]", self.query.partition("/")[2], maxsplit=1)[0]

    def matches(self, repo: str) -> bool:
        """Tell whether the name of a repo, `owner/name`, fits the pattern."""
        return fnmatch.fnmatchcase(repo, self.query)

    def __str__(self) -> str:
        return self.query + "".join(f" tagged {tag}" for tag in self.tags)


class ModelCollection(Record):
    """All models of a collection, in the order in which they were made on the Hub."""

    collection: Text
    """The collection's slug, as in its address: owner/title-0123456789abcdef01234567."""

    @field_validator("collection")
    @classmethod
    def _check_collection(cls, slug: str) -> str:
        if _COLLECTION.fullmatch(slug) is None:
            hint = "it is the end of the collection's address: owner/title-0123456789abcdef01234567"
            raise InvalidReferenceError(f"{shown(slug)} is not the slug of a collection", hint)
        return slug

    def __str__(self) -> str:
        return f"collection {self.collection}"


def kind_of_item(item: object) -> str:
    """Tell which kind of item of `models` some data is meant to be."""
    if isinstance(item, ModelQuery) or (isinstance(item, dict) and "query" in item and "model" not in item):
        return QUERY
    if isinstance(item, ModelCollection) or (isinstance(item, dict) and "collection" in item and "model" not in item):
        return COLLECTION
    return ENTRY
