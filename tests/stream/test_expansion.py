"""Expansion of recipes: merged entries keep their position, whatever the Hub has now."""

from __future__ import annotations

import pytest

from hubmerge.stream.expansion import Expansion, Find, expand
from hubmerge.stream.new_commits import Look, can_move
from hubmerge.stream.replacements import is_half, replaced_by
from merge_recipes import (
    LoadedRecipe,
    Lock,
    LockedModel,
    ModelCollection,
    ModelQuery,
    ModelReference,
    chain_digests,
    lock_recipe,
    parse_recipe,
)

HEAD = "merge_method: opcm\nbase_model: me/base\npublish: {repo: me/merged}\nmodels:\n"


def loaded(*items: str, extra: str = "") -> LoadedRecipe:
    return parse_recipe(HEAD + "".join(f"  - {item}\n" for item in items) + extra)


def commit(number: int) -> str:
    return f"{number:040x}"


def locked(name: str, number: int, repo: str | None = None, adapter: int | None = None) -> LockedModel:
    reference = ModelReference.parse(repo or f"me/{name}")
    return LockedModel(
        name=name,
        reference=reference,
        commit=commit(number),
        adapter_commit=None if adapter is None else commit(adapter),
    )


def hub(**found: list[str]) -> Find:
    def find(query: ModelQuery | ModelCollection) -> list[str]:
        return found[query.author if isinstance(query, ModelQuery) else "collection"]

    return find


def nothing(query: ModelQuery | ModelCollection) -> list[str]:
    raise AssertionError(f"{query} must not be asked for")


def names(expansion: Expansion) -> list[str]:
    return [entry.name for entry in expansion.entries]


def at(commits: dict[str, int]) -> Look:
    return lambda reference: (commit(commits[reference.path]), None) if reference.path in commits else None


def test_list_keeps_its_order() -> None:
    recipe = loaded("model: me/a", "model: me/b").recipe
    expansion = expand(recipe, [locked("b", 2), locked("c", 3)], 2, nothing, None)
    assert names(expansion) == ["a", "b"]
    assert expansion.pinned == {"b": locked("b", 2)}


def test_later_results_of_a_query_are_appended() -> None:
    recipe = loaded("query: 'me/x-*'", "model: me/a").recipe
    first = expand(recipe, [], 0, hub(me=["me/x-2", "me/x-1"]), None)
    assert names(first) == ["x-2", "x-1", "a"]
    before = [locked("x-2", 1), locked("x-1", 2), locked("a", 3)]
    for merged in range(4):
        later = expand(recipe, before, merged, hub(me=["me/x-0", "me/x-2", "me/x-1"]), None)
        assert names(later) == ["x-2", "x-1", "a", "x-0"]
        assert list(later.pinned) == ["x-2", "x-1", "a"]


def test_deleted_repos_stay_if_merged_and_leave_otherwise() -> None:
    recipe = loaded("query: 'me/x*'").recipe
    before = [locked("x1", 1), locked("x2", 2), locked("x3", 3)]
    assert names(expand(recipe, before, 2, hub(me=["me/x3"]), None)) == ["x1", "x2", "x3"]
    assert names(expand(recipe, before, 1, hub(me=["me/x3"]), None)) == ["x1", "x3"]


def test_queries_skip_base_target_and_listed_models() -> None:
    recipe = loaded("query: 'me/*'", "{model: me/a, name: mine}").recipe
    assert names(expand(recipe, [], 0, hub(me=["me/a", "me/base", "me/merged", "me/z"]), None)) == ["z", "mine"]


def test_two_queries_name_each_model_once() -> None:
    recipe = loaded("model: you/a", "query: 'me/*'", "collection: me/mine").recipe
    expansion = expand(recipe, [], 0, hub(me=["me/a", "me/b"], collection=["me/b", "they/b", "they/_"]), None)
    assert names(expansion) == ["a", "me-a", "b", "they-b", "model"]
    again = [locked(entry.name, index, str(entry.model)) for index, entry in enumerate(expansion.entries)]
    assert names(expand(recipe, again, 0, hub(me=["me/a", "me/b"], collection=["they/b", "they/_"]), None)) == names(
        expansion
    )


def test_new_commit_of_a_merged_model_is_appended_once() -> None:
    recipe = loaded("{model: me/a, parameters: {alpha: 0.7}}", "model: me/b", extra="on_update: append\n").recipe
    before = [locked("a", 1), locked("b", 2)]
    assert names(expand(recipe, before, 2, nothing, at({"me/a": 1, "me/b": 2}))) == ["a", "b"]
    extended = expand(recipe, before, 2, nothing, at({"me/a": 7, "me/b": 2}))
    assert names(extended) == ["a", "b", "a-2"]
    assert extended.entries[2].parameters == {"alpha": 0.7}
    assert extended.pinned["a-2"] == locked("a-2", 7, "me/a")
    after = [*before, locked("a-2", 7, "me/a")]
    assert names(expand(recipe, after, 3, nothing, at({"me/a": 7, "me/b": 2}))) == ["a", "b", "a-2"]
    assert names(expand(recipe, after, 3, nothing, at({"me/a": 1, "me/b": 2}))) == ["a", "b", "a-2"], "moved back"
    both = expand(recipe, after, 3, nothing, at({"me/a": 8, "me/b": 9}))
    assert names(both) == ["a", "b", "a-2", "a-3", "b-2"]
    assert names(expand(recipe, before, 1, nothing, at({"me/a": 1, "me/b": 9}))) == ["a", "b"], "b is not merged yet"
    assert names(expand(recipe, before, 2, nothing, at({}))) == ["a", "b"], "a repo that is gone"


def test_new_commit_takes_the_place_of_the_old_one() -> None:
    recipe = loaded("{model: me/a, parameters: {weight: 2}}", "model: me/b", extra="on_update: replace\n").recipe
    before = [locked("a", 1), locked("b", 2)]
    look = at({"me/a": 7, "me/b": 2})
    assert names(expand(recipe, before, 2, nothing, at({"me/a": 1, "me/b": 2}))) == ["a", "b"]
    extended = expand(recipe, before, 2, nothing, look)
    assert names(extended) == ["a", "b", "a-revoked", "a-2"]
    assert [entry.revoke for entry in extended.entries] == [None, None, "a", None]
    assert extended.entries[3].parameters == {"weight": 2}
    assert extended.pinned["a-revoked"] == locked("a-revoked", 1, "me/a")
    assert extended.pinned["a-2"] == locked("a-2", 7, "me/a")
    assert replaced_by(extended.entries, 4) == ("a",)
    assert [is_half(extended.entries, step) for step in range(1, 5)] == [False, False, True, False]
    after = [*before, locked("a-revoked", 1, "me/a"), locked("a-2", 7, "me/a")]
    again = expand(recipe, after, 4, nothing, look)
    assert [(entry.name, entry.revoke) for entry in again.entries] == [
        (entry.name, entry.revoke) for entry in extended.entries
    ]
    assert names(expand(recipe, after, 3, nothing, look)) == names(extended), "ended between the two steps"
    moved = expand(recipe, after, 4, nothing, at({"me/a": 1, "me/b": 9}))
    assert names(moved)[4:] == ["b-revoked", "b-2", "a-2-revoked", "a-3"] or names(moved)[4:] == [
        *["a-2-revoked", "a-3", "b-revoked", "b-2"]
    ]
    assert moved.pinned["a-3"].commit == commit(1), "moved back"


def test_a_new_commit_takes_the_place_of_all_that_were_appended() -> None:
    recipe = loaded("model: me/a", "model: me/b", extra="on_update: replace\n").recipe
    before = [locked("a", 1), locked("b", 2), locked("a-2", 3, "me/a")]
    extended = expand(recipe, before, 3, nothing, at({"me/a": 7, "me/b": 2}))
    assert names(extended)[3:] == ["a-revoked", "a-2-revoked", "a-3"]
    assert replaced_by(extended.entries, 6) == ("a", "a-2")
    assert [step for step in range(1, 7) if is_half(extended.entries, step)] == [4, 5]


@pytest.mark.parametrize("on_update", ["append", "replace"])
def test_a_revoked_entry_gets_no_new_commit(on_update: str) -> None:
    items = ("model: me/a", "model: me/b", "{model: me/a, revoke: a}")
    recipe = loaded(*items, extra=f"on_update: {on_update}\n").recipe
    before = [locked("a", 1), locked("b", 2), locked("a-revoked", 1, "me/a")]
    assert names(expand(recipe, before, 3, nothing, at({"me/a": 7, "me/b": 2}))) == ["a", "b", "a-revoked"]


def test_new_commits_of_query_results_take_their_places() -> None:
    recipe = loaded("query: 'me/x*'", extra="on_update: replace\n").recipe
    before = [locked("x1", 1), locked("x2", 3)]
    look, find = at({"me/x1": 4, "me/x2": 3, "me/x0": 9}), hub(me=["me/x0", "me/x1", "me/x2"])
    extended = expand(recipe, before, 2, find, look)
    assert names(extended) == ["x1", "x2", "x0", "x1-revoked", "x1-2"]
    after = [locked("x1", 1), locked("x2", 3), locked("x0", 9), extended.pinned["x1-revoked"], extended.pinned["x1-2"]]
    assert names(expand(recipe, after, 5, find, look)) == names(extended)
    assert names(expand(recipe, after, 5, hub(me=[]), look)) == names(extended), "the repos are gone"


def test_long_names_of_new_commits() -> None:
    name = "a" * 96
    recipe = loaded(f"{{model: me/a, name: {name}}}", "model: me/b", extra="on_update: replace\n").recipe
    before = [locked(name, 1, "me/a"), locked("b", 2)]
    look = at({"me/a": 7, "me/b": 2})
    extended = expand(recipe, before, 2, nothing, look)
    assert extended.entries[2].revoke == name
    half = [*before, extended.pinned[extended.entries[2].name]]
    assert expand(recipe, half, 3, nothing, look).entries[2] == extended.entries[2]


def test_new_listed_model_follows_merged_new_commits() -> None:
    recipe = loaded("model: me/a", "model: me/b", "model: me/c", extra="on_update: append\n").recipe
    before = [locked("a", 1), locked("b", 2), locked("a-2", 7, "me/a")]
    look = at({"me/a": 7, "me/b": 2, "me/c": 3})
    assert names(expand(recipe, before, 3, nothing, look)) == ["a", "b", "a-2", "c"]
    ignoring = loaded("model: me/a", "model: me/b", "model: me/c").recipe
    assert names(expand(ignoring, before, 3, nothing, look)) == ["a", "b", "a-2", "c"]


def test_model_with_a_numbered_name_is_not_a_new_commit() -> None:
    recipe = loaded("model: me/a", "model: me/a-2", extra="on_update: append\n").recipe
    before = [locked("a", 1), locked("a-2", 2)]
    assert names(expand(recipe, before, 2, nothing, at({"me/a": 5, "me/a-2": 2}))) == ["a", "a-2", "a-3"]


def test_new_commits_of_query_results() -> None:
    recipe = loaded("query: 'me/x*'", extra="on_update: append\n").recipe
    before = [locked("x1", 1), locked("x1-2", 2, "me/x1"), locked("x2", 3)]
    look = at({"me/x1": 4, "me/x2": 3, "me/x0": 9})
    assert names(expand(recipe, before, 3, hub(me=["me/x0", "me/x1", "me/x2"]), look)) == [
        *["x1", "x1-2", "x2"],
        *["x0", "x1-3"],
    ]


def test_new_commit_of_an_adapter_is_appended() -> None:
    recipe = loaded("{model: me/a+me/lora, name: a}", extra="on_update: append\n").recipe
    before = [locked("a", 1, "me/a+me/lora", adapter=2)]
    extended = expand(recipe, before, 1, nothing, lambda _: (commit(1), commit(3)))
    assert extended.pinned["a-2"] == locked("a-2", 1, "me/a+me/lora", adapter=3)


@pytest.mark.parametrize(
    ("reference", "moves"),
    [
        ("me/a", True),
        ("me/a@v1", True),
        (f"me/a@{commit(1)}", False),
        (f"me/a@{commit(1)}+me/lora", True),
        (f"me/a@{commit(1)}+me/lora@{commit(2)}", False),
        ("./a", False),
    ],
)
def test_can_move(reference: str, *, moves: bool) -> None:
    assert can_move(ModelReference.parse(reference)) is moves


def test_local_folder_is_never_appended() -> None:
    recipe = loaded("model: ./a", extra="on_update: append\n").recipe
    assert names(expand(recipe, [locked("a", 1, "./a")], 1, nothing, lambda _: (commit(9), None))) == ["a"]


def test_chain_of_merged_steps_does_not_change() -> None:
    found = loaded("query: 'me/x*'", extra="on_update: append\n")

    class Resolver:
        def resolve(self, kind: str, path: str, revision: str | None) -> str:
            assert (kind, revision) == ("model", None)
            return commit(sum(path.encode()))

    def resolved(expansion: Expansion) -> tuple[Lock, tuple[str, ...]]:
        lock = lock_recipe(found, Resolver(), entries=expansion.entries, pinned=expansion.pinned)
        return lock, chain_digests(found.recipe.with_stream(expansion.entries), lock)

    lock, chain = resolved(expand(found.recipe, [], 0, hub(me=["me/x1", "me/x2"]), None))
    moved = {model.reference.path: int(model.commit, 16) for model in lock.models} | {"me/x1": 5}
    extended, longer = resolved(expand(found.recipe, lock.models, 2, hub(me=["me/x0", "me/x1", "me/x2"]), at(moved)))
    assert [model.name for model in extended.models] == ["x1", "x2", "x0", "x1-2"]
    assert extended.models[-1].commit == commit(5)
    assert longer[:3] == chain
    assert len(longer) == 5
