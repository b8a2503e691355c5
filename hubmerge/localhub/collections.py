"""Collections: named lists of repos, one file each under `root/collections/`."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hubmerge.localhub.durable import TemporaryFolder, locked
from hubmerge.localhub.records import now
from hubmerge.localhub.refusals import BadRequest, Conflict, NotFound

MOST_COLLECTIONS = 1000
"""Collections of one namespace."""
MOST_ITEMS = 1000
LONGEST_TEXT = 1000
"""Characters of a title, a description or a note."""


@dataclass(frozen=True)
class Item:
    """A repo in a collection. `key` names the item itself, `id` what it points to."""

    key: str
    id: str
    type: str
    note: str | None = None


@dataclass(frozen=True)
class Collection:
    """A list of repos with a title."""

    key: str
    namespace: str
    title: str
    private: bool
    last_updated: str
    description: str | None = None
    theme: str = "orange"
    position: int = 0
    items: tuple[Item, ...] = field(default=())

    @property
    def slug(self) -> str:
        """The name in addresses: the title may change, the key at its end stays."""
        words = re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")[:60]
        return f"{self.namespace}/{words}-{self.key}" if words else f"{self.namespace}/{self.key}"

    def item(self, key: str) -> Item:
        """Return the item with a key.

        Raises:
            NotFound: no item has this key.
        """
        for item in self.items:
            if item.key == key:
                return item
        raise NotFound(f"The collection {self.slug} has no item {key!r}.")

    def with_item(self, item_id: str, kind: str, note: str | None) -> Collection:
        """Return the collection with one more item at its end.

        Raises:
            BadRequest: the collection has too many items.
            Conflict: the repo is already in the collection.
        """
        if any((item.id, item.type) == (item_id, kind) for item in self.items):
            raise Conflict(f"{item_id} is already in this collection.")
        if len(self.items) >= MOST_ITEMS:
            raise BadRequest(f"The collection has {MOST_ITEMS} items and takes no more.")
        return replace(self, items=(*self.items, Item(secrets.token_hex(12), item_id, kind, note)))

    def with_change(self, key: str, *, note: str | None, position: int | None) -> Collection:
        """Return the collection with a new note on an item, or with the item at a new position."""
        changed = self.item(key)
        rest = [item for item in self.items if item is not changed]
        place = self.items.index(changed) if position is None else max(0, min(position, len(rest)))
        rest.insert(place, changed if note is None else replace(changed, note=note))
        return replace(self, items=tuple(rest))

    def without_item(self, key: str) -> Collection:
        """Return the collection without an item."""
        gone = self.item(key)
        return replace(self, items=tuple(item for item in self.items if item is not gone))


class Collections:
    """All collections of a Hub folder."""

    def __init__(self, root: Path, temporary: TemporaryFolder) -> None:
        self._folder = root / "collections"
        self._lock = root / "locks" / "collections"
        self._temporary = temporary

    def all(self) -> Iterator[Collection]:
        """Walk all collections, in no fixed order."""
        for path in self._folder.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):
                yield self._read(path)

    @staticmethod
    def _read(path: Path) -> Collection:
        content: dict[str, Any] = json.loads(path.read_bytes())
        return Collection(**{**content, "items": tuple(Item(**item) for item in content["items"])})

    def _write(self, collection: Collection) -> Collection:
        texts = (collection.title, collection.description or "", *(item.note or "" for item in collection.items))
        if any(len(text) > LONGEST_TEXT for text in texts):
            raise BadRequest(f"A text of a collection has at most {LONGEST_TEXT} characters.")
        collection = replace(collection, last_updated=now())
        self._temporary.write_json(self._folder / f"{collection.key}.json", asdict(collection))
        return collection

    def find(self, slug: str) -> Collection:
        """Return the collection with the key at the end of a slug.

        Raises:
            NotFound: no collection has this slug.
        """
        namespace, _, name = slug.partition("/")
        key = name.rpartition("-")[2]
        try:
            if not re.fullmatch(r"[0-9a-f]{24}", key):
                raise FileNotFoundError(key)
            collection = self._read(self._folder / f"{key}.json")
        except FileNotFoundError as error:
            raise NotFound(f"There is no collection {slug!r}.") from error
        if collection.namespace != namespace:
            raise NotFound(f"There is no collection {slug!r}.")
        return collection

    def create(self, namespace: str, title: str, *, description: str | None, private: bool) -> Collection:
        """Create a collection.

        Raises:
            BadRequest: the title is empty or too long, or the namespace has too many collections.
            Conflict: the namespace has one with this title; the answer has its slug.
        """
        if not title.strip():
            raise BadRequest("A collection needs a title.")
        with locked(self._lock):
            own = [known for known in self.all() if known.namespace == namespace]
            for known in own:
                if known.title == title:
                    raise Conflict(f"{namespace} has a collection {title!r} already.", slug=known.slug)
            if len(own) >= MOST_COLLECTIONS:
                raise BadRequest(f"{namespace} has {MOST_COLLECTIONS} collections and takes no more.")
            return self._write(Collection(secrets.token_hex(12), namespace, title, private, now(), description))

    def change(self, slug: str, edit: Callable[[Collection], Collection]) -> Collection:
        """Replace a collection by the result of `edit`."""
        with locked(self._lock):
            return self._write(edit(self.find(slug)))

    def delete(self, slug: str) -> None:
        """Delete a collection."""
        with locked(self._lock):
            (self._folder / f"{self.find(slug).key}.json").unlink()
