"""Random recipes and locks, which are read or refused with a RecipeError and no other exception."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from merge_recipes import Lock, LockError, RecipeError, check_recipe, lock_recipe, parse_recipe
from tests.checks import every
from tests.merge_recipes.samples import CATALOG, RECIPE, SampleResolver, load

SEEDS = [
    RECIPE,
    RECIPE.replace("alpha: 0.5", "alpha: &a [{filter: attn, value: 0.7}, {value: 0.5}]\n  floor: *a"),
    RECIPE.replace("models:\n", "models:\n  - &m {model: ./x+a/b, parameters: {alpha: 0.1}}\n  - {<<: *m, name: y}\n"),
]
PIECES = [
    *(
        "[",
        "]",
        "{",
        "}",
        ":",
        ": ",
        "- ",
        "\n",
        "\n  ",
        "#",
        "&a ",
        "*a",
        "<<: ",
        "!!",
        "!!python/name:os ",
        "? ",
        "|",
    ),
    *("'", '"', "\\", "\t", "\0", "\ufeff", "\r", "\u2028", "\ud800", "%", "@", "+", "~", "null", "no", "1e999"),
    *("---\n", "...", "[]", "{}", "[{}]", "{value: 1}", "[{value: [1]}]", "-1", "9" * 30, "0x", "2024-01-31", "é"),
    *(
        ">",
        "|",
        ".nan",
        "😀",
        "{}{}",
        "[[1], {a: b}]",
        "{filter: [a], value: {}}",
        "[{filter: 1, value: 1}]",
        "a/b",
        "./x",
    ),
]
LOCK = lock_recipe(load(), SampleResolver()).to_yaml()


@st.composite
def mutated(draw: st.DrawFn, seeds: list[str]) -> str:
    text = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 0, 1, 5, 40])))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.text(max_size=4), st.just("")))
        text = text[:start] + piece + text[end:]
    return text


@st.composite
def with_values_swapped(draw: st.DrawFn, seeds: list[str]) -> str:
    """Draw a recipe with other values behind some keys, which is usually still YAML."""
    lines = draw(st.sampled_from(seeds)).splitlines()
    for _ in range(draw(st.integers(1, 3))):
        index = draw(st.integers(0, len(lines) - 1))
        key, colon, _ = lines[index].partition(": ")
        lines[index] = key + (colon or " ") + draw(st.sampled_from(PIECES))
    return "\n".join(lines)


def refused(read: Callable[[], Any]) -> RecipeError | None:
    """Return the RecipeError of a call, or None. Other exceptions pass through."""
    try:
        read()
    except RecipeError as error:
        return error
    return None


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.one_of(mutated(SEEDS), with_values_swapped(SEEDS)))
def test_recipes(text: str) -> None:
    def read() -> None:
        loaded = parse_recipe(text, catalog=CATALOG)
        check_recipe(loaded, CATALOG)
        lock = lock_recipe(loaded, SampleResolver())
        assert Lock.from_yaml(lock.to_yaml()).to_yaml() == lock.to_yaml()

    error = refused(read)
    assert error is None or every(problem.line and problem.column for problem in error.problems)
    event("read" if error is None else type(error).__name__)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.one_of(mutated([LOCK]), with_values_swapped([LOCK])))
def test_locks(text: str) -> None:
    def read() -> None:
        lock = Lock.from_yaml(text)
        assert Lock.from_yaml(lock.to_yaml()) == lock

    error = refused(read)
    assert error is None or isinstance(error, LockError)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"#%@`,?\n \t<0.e"), max_size=60))
def test_no_short_text_is_a_recipe(text: str) -> None:
    error = refused(lambda: parse_recipe(text))
    assert error is not None
    assert error.problems
