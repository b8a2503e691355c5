"""Locks: commits, text, and the digests of recipes and steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from merge_recipes import (
    Lock,
    LockError,
    RecipeError,
    chain_digests,
    check_lock,
    lock_recipe,
    parse_recipe,
    recipe_digest,
)
from tests.merge_recipes.samples import CATALOG, RECIPE, SampleResolver, load, sample

FIRST = "  - model: tanganke/clip-vit-base-patch32_sun397\n"
SECOND = "  - model: tanganke/clip-vit-base-patch32_stanford-cars@main\n"
HEX = "12345678901234567890123456789012345678e9"
SHA256 = "sha256:" + "ab" * 32


def lock_of(*changes: tuple[str, str]) -> Lock:
    return lock_recipe(load(*changes), SampleResolver())


def test_each_repo_and_revision_is_resolved_once() -> None:
    resolver = SampleResolver()
    second_task = "    - {name: cars, kind: image-classification, dataset: {path: tanganke/sun397, split: train}}\n"
    changes = ((SECOND, "  - model: a/b@v1+a/lora\n"), ("publish:\n", second_task + "publish:\n"))
    lock = lock_recipe(load(*changes), resolver)
    assert resolver.asked == [
        ("model", "openai/clip-vit-base-patch32", None),
        ("model", "tanganke/clip-vit-base-patch32_sun397", None),
        ("model", "a/b", "v1"),
        ("model", "a/lora", None),
        ("dataset", "tanganke/sun397", None),
    ]
    assert lock.models[1].adapter_commit is not None
    assert lock.models[1].label == f"a/b@{lock.models[1].commit}"
    assert len(lock.datasets) == 1
    assert lock.dataset_commit("tanganke/sun397", None, None) == lock.datasets[0].commit


def test_a_model_in_a_subfolder() -> None:
    base = ("base_model: openai/clip-vit-base-patch32", "base_model: a/b")
    lock = lock_recipe(load(base, (SECOND, "  - model: a/b/tuned\n")), SampleResolver(lambda *_: HEX))
    assert (lock.base_model.label, lock.models[1].label) == (f"a/b@{HEX}", f"a/b/tuned@{HEX}")
    assert lock.models[1].name == "tuned"


def test_a_lock_survives_its_text() -> None:
    lock = lock_recipe(load((SECOND, "  - model: a/b/x@v1+a/lora\n")), SampleResolver(lambda *_: HEX))
    text = lock.to_yaml()
    assert Lock.from_yaml(text) == lock
    assert Lock.from_yaml(text).to_yaml() == text
    assert f'commit: "{HEX}"' in text


def test_local_folders_are_printed_as_written_and_locked_by_content(tmp_path: Path) -> None:
    changes = ((FIRST, "  - model: ./one\n"), ("path: tanganke/sun397", "path: ./data"))
    resolver = SampleResolver(lambda _, path, __: SHA256 if path.startswith("/") else HEX)
    loaded = load(*changes, path=tmp_path / "sample.yaml")
    lock = lock_recipe(loaded, resolver)
    assert lock.models[0].commit == SHA256
    assert lock.models[0].reference.path == str(tmp_path / "one")
    assert lock.models[0].label == "./one"
    assert lock.datasets[0].path == "./data"
    assert ("dataset", str(tmp_path / "data"), None) in resolver.asked
    assert str(tmp_path) not in lock.to_yaml()
    assert Lock.from_yaml(lock.to_yaml()).within(tmp_path) == lock


def test_the_stream_is_locked_in_merge_order() -> None:
    lock = lock_of(("dtype: float32", "order: shuffled\nseed: 1"))
    recipe = load(("dtype: float32", "order: shuffled\nseed: 1")).recipe
    assert [model.name for model in lock.models] == [entry.name for entry in recipe.stream()]


@pytest.mark.parametrize("answer", ["main", HEX[:-1], HEX.upper(), HEX + "\n", "", "sha256:ab"])
def test_a_resolver_must_return_a_commit(answer: str) -> None:
    with pytest.raises(LockError, match=r"sample\.yaml:2:13: base_model: .* expected a commit of 40 hex digits"):
        lock_recipe(load(), SampleResolver(lambda *_: answer))


def test_the_base_model_under_another_revision_that_is_the_same_commit() -> None:
    loaded = load((SECOND, "  - model: openai/clip-vit-base-patch32@v1\n"))
    with pytest.raises(RecipeError, match=r"sample\.yaml:5:12: .*this is the base model: both have commit"):
        lock_recipe(loaded, SampleResolver(lambda *_: HEX))
    assert lock_recipe(loaded, SampleResolver()).models[1].name == "clip-vit-base-patch32"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1", "version: 2", r"lock\.yaml:2:10: version"),
        ("version: 1", "version: 3", r"lock\.yaml:2:10: version"),
        ("models:", "modles:", "did you mean models"),
        ("commit:", "comit:", "did you mean commit"),
        ('recipe: "sha256:', 'recipe: "md5:', "lock.yaml:3:9: recipe"),
        ("base_model:", "a: &a [*a]\nbase_model:", "inside its own anchor"),
        ("version: 1", "version: 1\nversion: 1", "duplicate key"),
    ],
)
def test_broken_locks(old: str, new: str, message: str) -> None:
    text = lock_of().to_yaml().replace(old, new, 1)
    with pytest.raises(LockError, match=message):
        Lock.from_yaml(text, file="lock.yaml")


def test_a_commit_without_quotes_is_a_number() -> None:
    text = lock_recipe(load(), SampleResolver(lambda *_: "1" * 40)).to_yaml()
    with pytest.raises(LockError, match="does not fit in 64 bits"):
        Lock.from_yaml(text.replace(f'"{"1" * 40}"', "1" * 40))


def test_a_lock_belongs_to_its_recipe() -> None:
    recipe, lock = load().recipe, lock_of()
    check_lock(recipe, lock)
    with pytest.raises(LockError, match="belongs to another recipe"):
        check_lock(load(("alpha: 0.5", "alpha: 0.6")).recipe, lock)
    with pytest.raises(LockError, match="the lock has the stream"):
        check_lock(load((SECOND, "")).recipe, lock)
    with pytest.raises(LockError, match="the lock has no dataset a/b"):
        lock.dataset_commit("a/b", None, None)


def test_the_digest_depends_on_the_content_only() -> None:
    digest = recipe_digest(load().recipe)
    lines = RECIPE.splitlines(keepends=True)
    reordered = "".join([*lines[15:], "# a comment\n", *lines[:15]])
    written_out = sample(("publish:", "order: listed\nfetch: cache\ntensors: {include: []}\npublish:"))
    for text in (reordered, written_out, sample(("alpha: 0.5", "alpha: 5e-1")), RECIPE.replace("\n", "\r\n")):
        assert recipe_digest(parse_recipe(text, catalog=CATALOG).recipe) == digest
    for change in (("alpha: 0.5", "alpha: 0.25"), ("split: test", "split: train"), ("steps: every", "steps: last")):
        assert recipe_digest(load(change).recipe) != digest


def test_the_digest_does_not_depend_on_the_folder_of_the_recipe(tmp_path: Path) -> None:
    changes = ((FIRST, "  - model: ./one\n"), ("path: tanganke/sun397", "path: ./data"))
    here, there = (load(*changes, path=tmp_path / name / "sample.yaml").recipe for name in ("a", "b"))
    assert here != there
    assert recipe_digest(here) == recipe_digest(there)


def chain(*changes: tuple[str, str]) -> tuple[str, ...]:
    loaded = load(*changes)
    return chain_digests(loaded.recipe, lock_recipe(loaded, SampleResolver()))


def test_a_longer_stream_keeps_its_digests() -> None:
    longer = chain((SECOND, SECOND + "  - model: a/c\n"))
    assert len(longer) == 4
    assert longer[:3] == chain()
    assert len(set(longer)) == 4


@pytest.mark.parametrize(
    "change",
    [
        ("split: test", "split: train"),
        ("steps: every", "steps: last"),
        ("name: sun397", "name: cars"),
        ("alpha: 0.5", "alpha: 5e-1"),
    ],
)
def test_keys_without_influence_on_weights_change_no_digest(change: tuple[str, str]) -> None:
    assert chain(change) == chain()


@pytest.mark.parametrize(
    ("change", "first_changed"),
    [
        (("base_model: openai/clip-vit-base-patch32", "base_model: a/b"), 0),
        (("projection", "scaled"), 0),
        (("alpha: 0.5", "alpha: 0.6"), 0),
        (("dtype: float32", "dtype: bfloat16"), 0),
        (("dtype: float32", "dtype: float32\nout_dtype: bfloat16"), 0),
        (("dtype: float32", "dtype: float32\ntensors: {exclude: ['*.bias']}"), 0),
        ((FIRST, FIRST[:-1] + "@v2\n"), 1),
        ((FIRST, FIRST[:-1] + "/folder\n"), 1),
        ((FIRST, FIRST[:-1] + "+a/lora\n"), 1),
        ((SECOND, SECOND + "    parameters: {alpha: 0.3}\n"), 2),
    ],
)
def test_keys_with_influence_on_weights_change_digests_from_that_step_on(
    change: tuple[str, str], first_changed: int
) -> None:
    if change[0] == "projection":
        loaded = parse_recipe(sample(change))
        changed = chain_digests(loaded.recipe, lock_recipe(loaded, SampleResolver()))
    else:
        changed = chain(change)
    same = [one == other for one, other in zip(changed, chain(), strict=True)]
    assert same == [True] * first_changed + [False] * (3 - first_changed)


def test_digests_never_change() -> None:
    """Published steps are identified by these digests, so a change here would break every published stream."""
    assert recipe_digest(load().recipe) == "sha256:717e1da51d44710e2fc29df7e24cd66c71930f23a397dac6fda0c22a9f1c7924"
    assert chain()[2] == "sha256:5e66d40e193f166ec11d4ff8c31fcc03d67a4b73e1b2abb91ad6db1bbb8f6749"
