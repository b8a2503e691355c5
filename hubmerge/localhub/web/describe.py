"""Repos, commits and trees in the form of the API."""

from __future__ import annotations

import functools
import itertools
import json
import math
import re
import struct
from collections import Counter
from collections.abc import Iterator
from typing import Any

import yaml

from hubmerge.localhub.objects import ObjectStore
from hubmerge.localhub.records import Commit, FileEntry, Tree, folder_oids
from hubmerge.localhub.repository import Repository, Settings
from hubmerge.support.names import CARD_FILE

CARD_LIMIT_BYTES = 1 << 20
CONFIG_LIMIT_BYTES = 4 << 20
HEADER_LIMIT_BYTES = 16 * 1000 * 1000
MAX_CARD_VALUES = 20_000
MAX_CARD_DEPTH = 50
LARGEST_NUMBER = (1 << 63) - 1


def split_card(text: str) -> tuple[list[str], list[str]]:
    """Split a card into the lines of its metadata block (between its first two `---` lines) and all other lines."""
    lines = text.lstrip("\ufeff").splitlines()
    if lines and lines[0].strip() == "---":
        end = next((index for index, line in enumerate(lines[1:], 1) if line.strip() == "---"), None)
        if end is not None:
            return lines[1:end], lines[end + 1 :]
    return [], lines


def card_text(text: str) -> str:
    """Return a card without its metadata block."""
    return "\n".join(split_card(text)[1])


def card_data(text: str) -> dict[str, Any]:
    """Read the metadata block of a card.

    Raises:
        ValueError: the block is not a YAML mapping, or is too large or nested too deep.
    """
    try:
        data = yaml.safe_load("\n".join(split_card(text)[0]))
    except RecursionError as error:
        raise ValueError("the metadata block is nested too deep") from error
    except (yaml.YAMLError, ArithmeticError, AttributeError, TypeError) as error:
        raise ValueError(str(error)) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ValueError("the metadata block is not a mapping")
    return {plain_text(name): value for name, value in json_value(data).items()}


def json_value(value: Any, depth: int = 0, counter: Iterator[int] | None = None) -> Any:
    """Return a YAML value with all parts that JSON lacks (dates, keys that are not text) as text.

    Args:
        value: the value; aliases count once for each use.
        depth: the number of lists and mappings around it.
        counter: counts the values that were converted before.

    Raises:
        ValueError: there are too many values, they are nested too deep, or a number is too large.
    """
    counter = itertools.count() if counter is None else counter
    if next(counter) > MAX_CARD_VALUES or depth > MAX_CARD_DEPTH:
        raise ValueError("the metadata block is too large or nested too deep")
    if isinstance(value, dict):
        return {plain_text(name): json_value(inner, depth + 1, counter) for name, inner in value.items()}
    if isinstance(value, list):
        return [json_value(inner, depth + 1, counter) for inner in value]
    if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
        raise ValueError("a number is too large")
    plain = value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return value if plain else plain_text(value)


def plain_text(value: object) -> str:
    """Return a value as text that can be encoded in UTF-8."""
    return str(value).encode(errors="replace").decode()


@functools.lru_cache(maxsize=512)
def _card_of(store: ObjectStore, oid: str) -> dict[str, Any]:
    try:
        return card_data(store.blob_path(oid).read_text(encoding="utf-8", errors="replace"))
    except (ValueError, OSError):
        return {}


def card_of(store: ObjectStore, tree: Tree) -> dict[str, Any]:
    """Return the card's metadata; empty if there is no card or it cannot be read."""
    entry = tree.get(CARD_FILE)
    if entry is None or entry.sha256 or entry.size > CARD_LIMIT_BYTES:
        return {}
    return _card_of(store, entry.oid)


def as_list(value: Any) -> list[str]:
    """Return a card field as a list of words."""
    values = value if isinstance(value, list) else [value]
    return [str(item) for item in values if item is not None]


def tags_of(card: dict[str, Any], tree: Tree, kind: str) -> list[str]:
    """Return the tags that a Hub derives from a card and the files."""
    tags = as_list(card.get("tags"))
    relation = card.get("base_model_relation")
    if kind == "model":
        tags += as_list(card.get("library_name")) + as_list(card.get("pipeline_tag"))
        if any(path.endswith(".safetensors") for path in tree):
            tags.append("safetensors")
        tags += [f"dataset:{name}" for name in as_list(card.get("datasets"))]
        for name in as_list(card.get("base_model")):
            tags += [f"base_model:{name}"] + ([f"base_model:{relation}:{name}"] if relation else [])
        tags += as_list(card.get("language"))
    else:
        for field in ("task_categories", "task_ids", "size_categories", "language", "multilinguality"):
            tags += [f"{field}:{name}" for name in as_list(card.get(field))]
    tags += [f"license:{name}" for name in as_list(card.get("license"))]
    return list(dict.fromkeys(tags))


def parameter_counts(store: ObjectStore, tree: Tree) -> dict[str, Any] | None:
    """Return the parameters in safetensors files at the root by dtype; None without valid files."""
    counts: Counter[str] = Counter()
    for path, entry in tree.items():
        if not path.endswith(".safetensors") or "/" in path or "adapter" in path or not entry.sha256:
            continue
        try:
            with store.lfs_path(entry.sha256).open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                if length > min(HEADER_LIMIT_BYTES, entry.size):
                    return None
                header = json.loads(file.read(length))
            for name, tensor in header.items():
                if name != "__metadata__":
                    counts[check_dtype(tensor["dtype"])] += tensor_size(tensor["shape"])
        except (ValueError, struct.error, OSError, KeyError, TypeError, AttributeError, RecursionError):
            return None
    return {"parameters": dict(counts), "total": sum(counts.values())} if counts else None


def check_dtype(dtype: object) -> str:
    """Return the name of a dtype; raise ValueError if it cannot be one."""
    if not isinstance(dtype, str) or not re.fullmatch("[A-Z0-9_]{1,16}", dtype):
        raise ValueError("not a dtype")
    return dtype


def tensor_size(shape: Any) -> int:
    """Return the number of values of a tensor; raise ValueError if the shape cannot be one."""
    if any(not isinstance(length, int) or not 0 <= length <= LARGEST_NUMBER for length in shape) or len(shape) > 64:
        raise ValueError("not a shape")
    size = math.prod(shape)
    if size > LARGEST_NUMBER:
        raise ValueError("not a shape")
    return size


def model_config(store: ObjectStore, tree: Tree) -> dict[str, Any] | None:
    """Return the two fields of `config.json` that a Hub shows."""
    entry = tree.get("config.json")
    if entry is None or entry.sha256 or entry.size > CONFIG_LIMIT_BYTES:
        return None
    try:
        config = json.loads(store.blob_path(entry.oid).read_bytes())
        return {name: json_value(config[name]) for name in ("architectures", "model_type") if name in config}
    except (ValueError, TypeError, OSError, RecursionError):
        return None


def describe_repo(
    store: ObjectStore,
    repository: Repository,
    settings: Settings,
    commit_id: str,
    *,
    blobs: bool = False,
    whole: bool = True,
) -> dict[str, Any]:
    """Return the description of a repo at a commit; `whole` adds the fields that are read from its files."""
    tree = repository.tree(commit_id)
    card = card_of(store, tree)
    described: dict[str, Any] = {
        "_id": commit_id[:24],
        "id": settings.id,
        "author": settings.namespace,
        "sha": commit_id,
        "private": settings.private,
        "gated": settings.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "createdAt": settings.created_at,
        "lastModified": repository.commit(commit_id).date,
        "tags": tags_of(card, tree, settings.kind),
        "cardData": card,
        "siblings": [describe_sibling(path, entry, blobs=blobs) for path, entry in tree.items()],
        **describe_kind(settings, card),
        **(describe_files(store, settings.kind, tree) if whole else {}),
    }
    return {name: value for name, value in described.items() if value is not None}


def describe_kind(settings: Settings, card: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that only models or only spaces have."""
    if settings.kind == "space":
        return {"sdk": settings.sdk}
    if settings.kind != "model":
        return {}
    named = {name: card[name] for name in ("library_name", "pipeline_tag") if isinstance(card.get(name), str)}
    return {"modelId": settings.id, **named}


def describe_files(store: ObjectStore, kind: str, tree: Tree) -> dict[str, Any]:
    """Return the fields that are read from the files of a repo."""
    read = {"safetensors": parameter_counts(store, tree), "config": model_config(store, tree)}
    storage = sum({entry.content_hash: entry.size for entry in tree.values()}.values())
    return {**(read if kind == "model" else {}), "usedStorage": storage}


def describe_sibling(path: str, entry: FileEntry, *, blobs: bool) -> dict[str, Any]:
    """Return a file for the list in a repo's description."""
    sibling: dict[str, Any] = {"rfilename": path}
    if blobs:
        sibling |= {"size": entry.size, "blobId": entry.oid}
        if entry.sha256:
            sibling["lfs"] = entry.lfs()
    return sibling


def describe_file(path: str, entry: FileEntry) -> dict[str, Any]:
    """Return a file for the listing of a folder."""
    described: dict[str, Any] = {"type": "file", "oid": entry.oid, "size": entry.size, "path": path}
    if entry.sha256:
        described["lfs"] = entry.lfs()
    return described


def describe_tree(tree: Tree, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    """Return the content of a folder, sorted by path; the root is ``""``."""
    prefix = f"{folder}/" if folder else ""
    listing = [describe_file(path, entry) for path, entry in tree.items() if path.startswith(prefix)]
    listing += [
        {"type": "directory", "oid": oid, "size": 0, "path": path}
        for path, oid in folder_oids(tree).items()
        if path and path.startswith(prefix)
    ]
    if not recursive:
        listing = [item for item in listing if "/" not in item["path"][len(prefix) :]]
    return sorted(listing, key=lambda item: item["path"])


def add_last_commits(repository: Repository, commit_id: str, items: list[dict[str, Any]]) -> None:
    """Add the last commit that changed it to each item of a listing."""
    waiting = {item["path"]: item for item in items}
    for found, commit in repository.history(commit_id):
        touched = set(commit.changed)
        for path in commit.changed:
            while path := path.rpartition("/")[0]:
                touched.add(path)
        for path in touched & waiting.keys():
            waiting.pop(path)["lastCommit"] = {"id": found, "title": commit.title, "date": commit.date}
        if not waiting:
            return


def describe_commit(commit_id: str, commit: Commit) -> dict[str, Any]:
    """Return a commit for a history."""
    return {
        "id": commit_id,
        "title": commit.title,
        "message": commit.message,
        "date": commit.date,
        "authors": [{"user": commit.author}],
    }
