"""Queries and collections in `models`: reading, checking and locking."""

from __future__ import annotations

import jsonschema
import pytest

from merge_recipes import (
    Lock,
    LockError,
    ModelCollection,
    ModelQuery,
    RecipeError,
    StreamEntry,
    chain_digests,
    check_lock,
    check_recipe,
    json_schema,
    lock_recipe,
    recipe_digest,
    task_entries,
)
from merge_recipes.read_yaml import read_document
from tests.merge_recipes.samples import CATALOG, SampleResolver, load, sample

FIRST = "  - model: tanganke/clip-vit-base-patch32_sun397\n"
QUERIES = "  - {query: 'me/clip-*', tags: [clip, merged]}\n  - collection: me/mine-0123456789abcdef01234567\n"


def test_queries_and_collections_are_items_of_the_stream() -> None:
    recipe = load((FIRST, FIRST + QUERIES)).recipe
    assert recipe.models[1:3] == (
        ModelQuery(query="me/clip-*", tags=("clip", "merged")),
        ModelCollection(collection="me/mine-0123456789abcdef01234567"),
    )
    assert recipe.has_queries
    assert [entry.name for entry in recipe.entries] == [entry.name for entry in recipe.stream()]
    assert len(recipe.entries) == 2


@pytest.mark.parametrize(
    ("query", "author", "literal", "fitting", "other"),
    [
        ("me/clip-*", "me", "clip-", "me/clip-sun", "me/vit"),
        ("me/*_dots", "me", "", "me/tiny_dots", "you/tiny_dots"),
        ("me/v?t", "me", "v", "me/vit", "me/viit"),
    ],
)
def test_the_parts_of_a_query(query: str, author: str, literal: str, fitting: str, other: str) -> None:
    found = ModelQuery(query=query)
    assert (found.author, found.literal) == (author, literal)
    assert found.matches(fitting)
    assert not found.matches(other)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("query: me/clip", r"models\[0\]\.query: \"me/clip\" is a repo, not a query"),
        ("query: '*/clip'", r"models\[0\]\.query: .* is not a query: expected author/pattern"),
        ("query: 'me/clip-*/x'", "is not a query"),
        ("query: 3", r"models\[0\]\.query: expected text, got the number 3"),
        ("{query: 'me/c*', tag: [x]}", r"models\[0\]\.tag: unknown key; did you mean tags\?"),
        ("{query: 'me/c*', tags: [1]}", r"models\[0\]\.tags\[0\]: expected text"),
        ("collection: mine", r"models\[0\]\.collection: \"mine\" is not the slug of a collection"),
        ("{collection: a/b, tags: [x]}", r"models\[0\]\.tags: unknown key; expected one of: collection"),
        ("{model: a/b, query: 'me/c*'}", r"models\[0\]\.query: unknown key"),
    ],
)
def test_an_invalid_query_is_reported_at_its_place(item: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as refused:
        load((FIRST, f"  - {item}\n"))
    assert refused.value.problems[0].line == 4


def test_a_stream_with_queries_is_not_shuffled() -> None:
    with pytest.raises(RecipeError, match="order: a stream with queries cannot be shuffled"):
        load((FIRST, QUERIES), ("dtype: float32", "order: shuffled\nseed: 1"))


def test_a_task_can_belong_to_an_entry_that_a_query_will_find() -> None:
    loaded = load((FIRST, QUERIES), ("kind: zero", "model: clip-sun397\n      kind: zero"))
    assert check_recipe(loaded, CATALOG) == []
    recipe = loaded.recipe.with_stream([entry("me/clip-sun397"), *loaded.recipe.entries])
    assert task_entries(recipe) == {"sun397": "clip-sun397"}


def test_queries_match_the_schema() -> None:
    for schema in (json_schema(), json_schema(CATALOG)):
        data = read_document(sample((FIRST, QUERIES)), "sample.yaml").data
        assert jsonschema.Draft202012Validator(schema).is_valid(data)
        data["models"][0]["tag"] = "x"
        assert not jsonschema.Draft202012Validator(schema).is_valid(data)


def entry(model: str, name: str | None = None) -> StreamEntry:
    return StreamEntry.model_validate({"model": model} if name is None else {"model": model, "name": name})


def test_a_lock_can_have_more_models_than_the_recipe() -> None:
    loaded = load(("dtype: float32", "on_update: append"))
    first, second = loaded.recipe.stream()
    locked = lock_recipe(loaded, SampleResolver())
    newer = locked.models[0].model_copy(update={"name": "sun397-2", "commit": "5" * 40})
    entries = (first, second, entry(str(first.model), "sun397-2"), entry("me/clip-dots"))
    extended = lock_recipe(loaded, SampleResolver(), entries=entries, pinned={"sun397-2": newer})
    assert extended.models[:2] == locked.models
    assert extended.models[2] == newer
    assert [model.name for model in extended.models] == [first.name, second.name, "sun397-2", "clip-dots"]
    assert extended.recipe == recipe_digest(loaded.recipe)
    check_lock(loaded.recipe, extended)
    chain = chain_digests(loaded.recipe.with_stream(entries), extended)
    assert chain[:3] == chain_digests(loaded.recipe, locked)
    assert len(chain) == 5
    with pytest.raises(LockError, match="the lock has the stream"):
        check_lock(loaded.recipe, extended.model_copy(update={"models": extended.models[1:]}))


def test_the_versions_of_a_lock_survive_its_text() -> None:
    lock = lock_recipe(load(), SampleResolver())
    assert "versions" not in lock.to_yaml()
    versioned = lock.model_copy(update={"versions": {"torch": "2.13.0+cpu", "hubmerge": "0.1.0"}})
    assert Lock.from_yaml(versioned.to_yaml()) == versioned
