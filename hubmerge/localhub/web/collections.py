"""Collections over HTTP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hubmerge.localhub.collections import Collection
from hubmerge.localhub.refusals import BadRequest, NotFound
from hubmerge.localhub.web.calls import PREFIXES, Call, readable, require_write, route
from hubmerge.localhub.web.paging import page

COLLECTIONS_PAGE = 100
ITEMS_IN_LIST = 4
SLUG = "/api/collections/{namespace}/{slug}"


def describe(collection: Collection, *, listed: bool = False) -> dict[str, Any]:
    """Return a collection in the form of the API; in a list, without position and with few items."""
    items = [
        {
            "_id": item.key,
            "id": item.id,
            "type": item.type,
            "position": position,
            **({"note": {"text": item.note}} if item.note is not None else {}),
        }
        for position, item in enumerate(collection.items)
    ]
    described: dict[str, Any] = {
        "slug": collection.slug,
        "title": collection.title,
        "description": collection.description,
        "owner": {"type": "user", "name": collection.namespace},
        "items": items[:ITEMS_IN_LIST] if listed else items,
        "lastUpdated": collection.last_updated,
        "private": collection.private,
        "theme": collection.theme,
        "upvotes": 0,
    }
    return described if listed else {**described, "position": collection.position}


def is_visible(call: Call, collection: Collection) -> bool:
    """Return True if the caller may see a collection."""
    return not collection.private or (call.user is not None and call.user.owns(collection.namespace))


def find_visible(call: Call) -> Collection:
    """Return the collection of the address.

    Raises:
        NotFound: it does not exist, or the caller may not see it.
    """
    collection = call.site.collections.find(f"{call.params['namespace']}/{call.params['slug']}")
    if not is_visible(call, collection):
        raise NotFound(f"There is no collection {call.params['slug']!r}.")
    return collection


def find_writable(call: Call) -> str:
    """Return the slug of the collection of the address for a caller who may change it."""
    collection = find_visible(call)
    require_write(call, collection.namespace)
    return collection.slug


def list_collections(call: Call) -> Any:
    """List the collections that the caller may see, newest first."""
    query = call.request.query_params
    owners, items = query.getlist("owner"), set(query.getlist("item"))
    listed = [
        collection
        for collection in call.site.collections.all()
        if is_visible(call, collection)
        and (not owners or collection.namespace in owners)
        and (not items or items & {f"{item.type}s/{item.id}" for item in collection.items})
    ]
    listed.sort(key=lambda collection: collection.last_updated, reverse=True)
    return page(call, [describe(collection, listed=True) for collection in listed], COLLECTIONS_PAGE)


def create(call: Call) -> Any:
    """Create a collection."""
    data = call.json()
    namespace = str(data.get("namespace") or call.login().name)
    require_write(call, namespace)
    description = data.get("description")
    return describe(
        call.site.collections.create(
            namespace,
            str(data.get("title") or ""),
            description=None if description is None else str(description),
            private=bool(data.get("private")),
        )
    )


def show(call: Call) -> Any:
    """Describe a collection."""
    return describe(find_visible(call))


def change(call: Call) -> Any:
    """Change title, description, privacy, theme or position."""
    data = call.json()
    kinds: dict[str, type] = {"title": str, "description": str, "theme": str, "private": bool, "position": int}
    changes: dict[str, Any] = {name: data[name] for name, kind in kinds.items() if isinstance(data.get(name), kind)}
    changed = call.site.collections.change(find_writable(call), lambda collection: replace(collection, **changes))
    return {"success": True, "data": describe(changed)}


def delete(call: Call) -> Any:
    """Delete a collection; the repos in it stay."""
    call.site.collections.delete(find_writable(call))
    return {"success": True}


def add_item(call: Call) -> Any:
    """Put a repo into a collection."""
    slug = find_writable(call)
    data = call.json()
    item = data.get("item")
    if not isinstance(item, dict) or item.get("type") not in PREFIXES:
        raise BadRequest("Expected an `item` with the id and type of a model, dataset or space.")
    readable(call.site, call.user, item["type"], str(item.get("id")))
    note = data.get("note")
    changed = call.site.collections.change(
        slug,
        lambda collection: collection.with_item(str(item["id"]), item["type"], None if note is None else str(note)),
    )
    return describe(changed)


def change_item(call: Call) -> Any:
    """Change the note or the position of an item."""
    data = call.json()
    note, position = data.get("note"), data.get("position")
    call.site.collections.change(
        find_writable(call),
        lambda collection: collection.with_change(
            call.params["item"],
            note=None if note is None else str(note),
            position=position if isinstance(position, int) else None,
        ),
    )
    return {"success": True}


def delete_item(call: Call) -> Any:
    """Remove an item from a collection."""
    call.site.collections.change(find_writable(call), lambda collection: collection.without_item(call.params["item"]))
    return {"success": True}


ROUTES = [
    route("GET", "/api/collections", list_collections),
    route("POST", "/api/collections", create),
    route("GET", SLUG, show),
    route("PATCH", SLUG, change, find_writable),
    route("DELETE", SLUG, delete, find_writable),
    route("POST", SLUG + "/items", add_item, find_writable),
    route("PATCH", SLUG + "/items/{item}", change_item, find_writable),
    route("DELETE", SLUG + "/items/{item}", delete_item, find_writable),
]
