"""Items of `models` that find checkpoints on the Hub: queries by author and name, and collections.

They are read and checked here. The Hub is asked for the checkpoints when the recipe is locked.
"""

from __future__ import annotations

import fnmatch
import re

from pydantic import field_validator

from merge_recipes.errors import InvalidReferenceError, format_value
from merge_recipes.record import Record, Text

ENTRY, QUERY, COLLECTION = "<entry>", "<query>", "<collection>"
"""The kinds of items of `models`. The brackets distinguish them from keys in a key path."""

_QUERY = re.compile(r"(?P<author>[A-Za-z0-9][A-Za-z0-9._-]*)/(?P<name>[A-Za-z0-9._*?-]+)")
_COLLECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


class ModelQuery(Record):
    """All models of an author with names that match a pattern, the oldest repo first."""

    query: Text
    """author/pattern, where * matches any characters and ? one character, for example me/clip-vit-*."""
    tags: tuple[Text, ...] = ()
    """Tags that a model must have, all of them."""

    @field_validator("query")
    @classmethod
    def _check_query(cls, query: str) -> str:
        match = _QUERY.fullmatch(query)
        if match is None:
            raise InvalidReferenceError(
                f"{format_value(query)} is not a query: expected author/pattern",
                "write for example `query: me/clip-vit-*`",
            )
        if not {"*", "?"} & set(match["name"]):
            raise InvalidReferenceError(
                f"{format_value(query)} is a repo, not a query: expected * or ? in the pattern",
                f"write `model: {query}`",
            )
        return query

    @property
    def author(self) -> str:
        """The user or organization."""
        return self.query.partition("/")[0]

    @property
    def literal(self) -> str:
        """The part of the name before the first * or ?, possibly empty."""
        return re.split(r"[*?]", self.query.partition("/")[2], maxsplit=1)[0]

    def matches(self, repo: str) -> bool:
        """Return True if a repo, `owner/name`, matches the pattern."""
        return fnmatch.fnmatchcase(repo, self.query)

    def __str__(self) -> str:
        return self.query + "".join(f" tagged {tag}" for tag in self.tags)


class ModelCollection(Record):
    """All models of a collection, the oldest repo first."""

    collection: Text
    """The slug of the collection, the end of its web address: owner/title-0123456789abcdef01234567."""

    @field_validator("collection")
    @classmethod
    def _check_collection(cls, slug: str) -> str:
        if _COLLECTION.fullmatch(slug) is None:
            hint = "write the end of the collection's address: owner/title-0123456789abcdef01234567"
            raise InvalidReferenceError(f"{format_value(slug)} is not the slug of a collection", hint)
        return slug

    def __str__(self) -> str:
        return f"collection {self.collection}"


def kind_of_item(item: object) -> str:
    """Return the kind of an item of `models`, judged by its keys: ENTRY, QUERY or COLLECTION."""
    if isinstance(item, ModelQuery) or (isinstance(item, dict) and "query" in item and "model" not in item):
        return QUERY
    if isinstance(item, ModelCollection) or (isinstance(item, dict) and "collection" in item and "model" not in item):
        return COLLECTION
    return ENTRY
