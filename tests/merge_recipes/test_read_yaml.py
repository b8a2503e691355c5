"""Reading of YAML: values, mistakes, and hostile texts, which are refused quickly."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from merge_recipes import RecipeError, RecipeFileError, RecipeSyntaxError, load_recipe, parse_recipe
from merge_recipes.read_yaml import MAX_FILE_BYTES, read_document
from merge_recipes.yaml_nodes import MAX_DEPTH, MAX_NODES
from tests.merge_recipes.samples import RECIPE, sample

PATIENCE_SECONDS = 20.0


def data_of(text: str) -> Any:
    document = read_document(text, "sample.yaml")
    assert document.problems == ()
    return document.data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-2.5e+2", -250.0),
        ("1_000", 1000),
        ("0x1F", 31),
        ("-7", -7),
        ("012", "012"),
        ("1:30", "1:30"),
        ("2024-01-31", "2024-01-31"),
        ("2024-01-31 10:00:00", "2024-01-31 10:00:00"),
        ("no", False),
        ("On", True),
        ("~", None),
        ("", None),
        ("'no'", "no"),
        ('"0.5"', "0.5"),
        ("!!str 5", "5"),
        ("! 5", "5"),
        ("!!float 5", 5),
        ("=", "="),
        ("1.2.3", "1.2.3"),
        ("v1", "v1"),
    ],
)
def test_scalars(text: str, value: object) -> None:
    read = data_of(f"key: {text}\n")["key"]
    assert read == value
    assert type(read) is type(value)


def test_keys_are_text() -> None:
    assert data_of("{no: 1, 2: 2, 0.5: 3, 2024-01-31: 4, ~: 5}") == {
        "no": 1,
        "2": 2,
        "0.5": 3,
        "2024-01-31": 4,
        "~": 5,
    }


def test_anchors_and_merge_keys() -> None:
    text = """
    one: &one {a: 1, b: {c: 2}}
    two: &two {a: 3, d: 4}
    own: {<<: *one, a: 0}
    both: {<<: [*one, *two]}
    late: {a: 9, <<: *two}
    through: &through {<<: *one, e: 5}
    again: {<<: *through}
    """
    data = data_of(text)
    assert data["own"] == {"a": 0, "b": {"c": 2}}
    assert data["both"] == {"a": 1, "b": {"c": 2}, "d": 4}
    assert data["late"] == {"a": 9, "d": 4}
    assert data["again"] == {"a": 1, "b": {"c": 2}, "e": 5}


def test_values_of_a_merge_key_have_the_position_of_their_source() -> None:
    marks = read_document("one: &one\n  a: 1\ntwo:\n  <<: *one\n", "sample.yaml").marks
    assert marks.key(("two", "a")) == (2, 3)
    assert marks.value(("two", "a")) == (2, 6)
    assert marks.value(("two", "missing")) == (4, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object/apply:os.system [ls]", "!!python/object/apply:os.system is not allowed"),
        ("a: !!set {b}", "!!set is not allowed"),
        ("a: !!binary aGk=", "!!binary is not allowed"),
        ("a: !local b", "!local is not allowed"),
        ("a: !!timestamp 2024-01-31", "!!timestamp is not allowed"),
        ("a: !!int 0.5", "does not match its tag !!int"),
        ("a: 1\na: 2", "duplicate key, already given in line 1"),
        ("<<: 3", "expected a mapping"),
        ("a: .nan", "not a finite number"),
        ("a: 99999999999999999999", "does not fit in 64 bits"),
        ('a: "\\ud800"', "half a surrogate pair"),
        ('"\\0": 1', "expected text as a key"),
    ],
)
def test_mistakes_that_do_not_prevent_reading(text: str, message: str) -> None:
    problems = read_document(text, "sample.yaml").problems
    assert len(problems) == 1
    assert message in problems[0].message


def bomb(levels: int) -> str:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        aliases = ", ".join([f"*l{level - 1}"] * 10)
        lines.append(f"l{level}: &l{level} [{aliases}]")
    return "\n".join(lines)


def merge_bomb(levels: int) -> str:
    lines = ["l0: &l0 {a: 1}"]
    for level in range(1, levels):
        aliases = ", ".join([f"*l{level - 1}"] * 10)
        lines.append(f"l{level}: &l{level} {{<<: [{aliases}]}}")
    return "\n".join(lines)


HOSTILE = {
    "deep list": ("[" * 500_000, f"more than {MAX_DEPTH} levels"),
    "deep mapping": ("a: {" * 100_000, f"more than {MAX_DEPTH} levels"),
    "deep block": ("- " * 300_000, f"more than {MAX_DEPTH} levels"),
    "deep by aliases": (
        "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 2000)),
        "levels deep",
    ),
    "many values": ("- a\n" * 250_000, f"more than {MAX_NODES} values"),
    "alias bomb": (bomb(9), f"more than {MAX_NODES} values"),
    "merge bomb": (merge_bomb(9), f"more than {MAX_NODES} values"),
    "an alias in its own anchor": ("a: &a [*a]", "inside its own anchor"),
    "an alias of an outer anchor": ("&a {b: {c: *a}}", "inside its own anchor"),
    "impossible escape": ('a: "\\U00FFFFFF"', "not YAML"),
    "impossible version": ("%YAML " + "9" * 5000 + ".1\n---\na: 1", "not YAML"),
    "NUL": ("a: b\0", "control character"),
    "open quote": ("'" * 100_001, "not YAML"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_refused_quickly(name: str) -> None:
    text, message = HOSTILE[name]
    started = time.monotonic()
    with pytest.raises(RecipeSyntaxError, match=message):
        parse_recipe(text)
    assert time.monotonic() - started < PATIENCE_SECONDS


def test_a_file_of_ten_megabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * 10_000_000)
    started = time.monotonic()
    with pytest.raises(RecipeFileError, match=f"larger than {MAX_FILE_BYTES} bytes"):
        load_recipe(path)
    assert time.monotonic() - started < 1.0


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(RECIPE.encode() + b"#" * (MAX_FILE_BYTES - len(RECIPE)))
    assert load_recipe(path).recipe.merge_method == "projection"


@pytest.mark.parametrize("content", [RECIPE.encode("utf-8-sig"), RECIPE.replace("\n", "\r\n").encode()])
def test_bom_and_crlf_are_read(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "sample.yaml"
    path.write_bytes(content)
    loaded = load_recipe(path)
    assert loaded.recipe == parse_recipe(RECIPE, path=path).recipe
    assert loaded.marks.key(("merge_method",)) == (1, 1)


@pytest.mark.parametrize(
    ("content", "line"),
    [(RECIPE.encode("utf-16"), 1), (b"a: 1\nb: \xff\n", 2), ("größe".encode("latin-1"), 1)],
)
def test_other_encodings_are_refused(content: bytes, line: int, tmp_path: Path) -> None:
    path = tmp_path / "sample.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeFileError, match="not UTF-8") as caught:
        load_recipe(path)
    assert caught.value.problems[0].line == line


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeFileError, match="the file does not exist"):
        load_recipe(tmp_path / "missing.yaml")
    with pytest.raises(RecipeFileError, match="this is a folder"):
        load_recipe(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeFileError, match="cannot be read"):
        load_recipe(tmp_path / "file" / "sample.yaml")
    with pytest.raises(RecipeFileError, match="cannot be read"):
        load_recipe(tmp_path / ("x" * 5000))


def test_the_text_is_kept_as_written() -> None:
    text = "# a comment\n" + RECIPE.replace("\n", "  # another\n", 1)
    assert parse_recipe(text).text == text


def test_comments_and_anchors_in_a_recipe() -> None:
    text = sample(
        ('prompts: ["a photo of a {}."]', 'prompts: &prompts ["a photo of a {}."]  # one template'),
        (
            "publish:\n",
            "    - {name: cars, kind: image-classification, dataset: {path: a/b}, prompts: *prompts}\npublish:\n",
        ),
    )
    loaded = parse_recipe(text)
    assert loaded.recipe.evaluate is not None
    assert [task.prompts for task in loaded.recipe.evaluate.tasks] == [("a photo of a {}.",)] * 2


def test_the_message_lists_at_most_forty_problems() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(RECIPE + "".join(f"unknown_{index}: 1\n" for index in range(60)))
    assert len(caught.value.problems) == 60
    assert str(caught.value).endswith("... and 20 more problems")
