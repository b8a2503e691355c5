"""Tasks in separate files: the included keys, the places of problems, and the text that is published."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from merge_recipes import RecipeError, json_schema, load_recipe, parse_recipe, recipe_digest
from merge_recipes.include import MAX_INCLUDES
from merge_recipes.read_yaml import MAX_FILE_BYTES, read_document
from tests.merge_recipes.samples import CATALOG

HEAD = "merge_method: projection\nbase_model: a/base\nmodels: [{model: a/one}, {model: a/two}]\nevaluate:\n  tasks:\n"
ONE = """\
# What everyone knows about one.

name: one
kind: zero-shot-image-classification
dataset:
  path: a/data   # the usual copy
  split: test
prompts:
  - "a photo of a {}."
class_names: ["yes", "no"]
"""
TWO = "{name: two, kind: image-classification, dataset: {path: a/data}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Create a folder for recipes, with task files in the folder beside it."""
    (tmp_path / "streams").mkdir()
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "one.yaml").write_text(ONE)
    (tmp_path / "tasks" / "two.yml").write_text(TWO)
    return tmp_path / "streams"


def recipe(folder: Path, tasks: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(HEAD + tasks)
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, CATALOG)
    return [str(problem) for problem in caught.value.problems]


BOTH = "    # the first\n    - include: ../tasks/one.yaml   # as ever\n    - include: ../tasks/two.yml\n# the end\n"


def test_included_tasks_are_those_of_the_files(folder: Path) -> None:
    loaded = load_recipe(recipe(folder, BOTH), CATALOG)
    assert loaded.recipe.evaluate is not None
    one, two = loaded.recipe.evaluate.tasks
    assert (one.name, one.class_names, one.dataset.path) == ("one", ("yes", "no"), "a/data")
    assert (two.name, two.kind) == ("two", "image-classification")


def test_the_text_contains_the_included_tasks(folder: Path) -> None:
    loaded = load_recipe(recipe(folder, BOTH), CATALOG)
    assert "include:" not in loaded.text
    assert "# the usual copy" in loaded.text
    assert loaded.text.index("# the first") < loaded.text.index("name: one") < loaded.text.index("# the end")
    again = parse_recipe(loaded.text, catalog=CATALOG)
    assert again.recipe == loaded.recipe
    assert recipe_digest(again.recipe) == recipe_digest(loaded.recipe)
    assert again.text == loaded.text


@pytest.mark.parametrize(
    "item",
    [
        "    - include: ../tasks/one.yaml\n      model: two\n      metrics: [f1]\n",
        "    - model: two\n      include: '../tasks/one.yaml'\n      metrics: [f1]\n",
        "    -   metrics: [f1]\n        model: two\n        include: ../tasks/one.yaml",
    ],
)
def test_keys_beside_include_override_the_file(folder: Path, item: str) -> None:
    loaded = load_recipe(recipe(folder, item), CATALOG)
    assert loaded.recipe.evaluate is not None
    (task,) = loaded.recipe.evaluate.tasks
    assert (task.name, task.model, task.metrics) == ("one", "two", ("f1",))
    assert parse_recipe(loaded.text, catalog=CATALOG).recipe == loaded.recipe


def test_a_name_beside_include_replaces_the_file_s_name(folder: Path) -> None:
    loaded = load_recipe(recipe(folder, "    - include: ../tasks/one.yaml\n      name: other\n      model: one\n"))
    assert loaded.recipe.evaluate is not None
    assert [task.name for task in loaded.recipe.evaluate.tasks] == ["other"]
    assert parse_recipe(loaded.text).recipe == loaded.recipe


def test_tasks_of_the_recipe_and_included_tasks_can_be_mixed(folder: Path) -> None:
    written = "    - name: own\n      kind: image-classification\n      dataset: {path: a/data}\n      model: one\n"
    loaded = load_recipe(recipe(folder, BOTH.replace("# the end\n", written)), CATALOG)
    assert loaded.recipe.evaluate is not None
    assert [task.name for task in loaded.recipe.evaluate.tasks] == ["one", "two", "own"]


def test_local_paths_start_from_the_recipe(folder: Path) -> None:
    (folder.parent / "tasks" / "one.yaml").write_text(ONE.replace("path: a/data", "path: ./data"))
    loaded = load_recipe(recipe(folder, BOTH))
    assert loaded.recipe.evaluate is not None
    assert loaded.recipe.evaluate.tasks[0].dataset.path == str(folder / "data")


def test_problems_name_the_file_and_its_line(folder: Path) -> None:
    tasks = folder.parent / "tasks"
    (tasks / "one.yaml").write_text(ONE.replace("kind: zero-shot-image", "kind: zero-shoot-image"))
    (tasks / "two.yml").write_text("name: two\nname: again\nkind: image-classification\ndatset: {path: a/data}\n")
    path = recipe(folder, BOTH.replace("# the end", "zzz: 1"))
    found = problems(path)
    assert [text.split(": ")[0].removeprefix(str(folder.parent)) for text in found] == [
        "/streams/recipe.yaml:9:1",
        "/tasks/one.yaml:4:7",
        "/tasks/two.yml:2:1",
        "/tasks/two.yml:4:1",
    ]
    assert "evaluate.tasks[0].kind: there is no kind of task" in found[1]
    assert "evaluate.tasks[1].name: duplicate key" in found[2]
    assert "did you mean dataset?" in found[3]


def test_a_missing_key_is_reported_once(folder: Path) -> None:
    (folder.parent / "tasks" / "two.yml").write_text("name: two\nkind: image-classification\n")
    (found,) = problems(recipe(folder, BOTH))
    assert "/tasks/two.yml:1:1: evaluate.tasks[1].dataset: this key is required" in found


def test_repeated_names_are_reported_with_their_file(folder: Path) -> None:
    path = recipe(folder, "    - include: ../tasks/one.yaml\n    - include: ../tasks/two.yml\n      name: one\n")
    (found,) = problems(path)
    assert f"{path}:8:13" in found
    assert f"taken by the task in line 3 of {folder.parent}/tasks/one.yaml" in found


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("../tasks/none.yaml", "the file does not exist"),
        ("../tasks", "not a YAML file"),
        ("../tasks/one.txt", "not a YAML file"),
        ("[a.yaml]", "expected the path of a YAML file, got a list"),
        ("''", "expected the path of a YAML file"),
        ("../../elsewhere/one.yaml", "is not allowed: expected a file in"),
        ("https://example.org/one.yaml", "the file does not exist"),
        ("../tasks/deep.yaml", "is not a file"),
        ("link.yaml", "is not allowed: expected a file in"),
    ],
)
def test_files_that_cannot_be_included(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, value: str, message: str
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "secret.yaml"
    elsewhere.write_text("name: secret\n")
    (folder / "link.yaml").symlink_to(elsewhere)
    (folder.parent / "tasks" / "deep.yaml").mkdir()
    found = problems(recipe(folder, f"    - include: {value}\n"))
    assert len(found) == 1, found
    assert message in found[0]
    assert "recipe.yaml:6:" in found[0]
    assert "secret" not in found[0]


def test_an_absolute_path_is_refused(folder: Path) -> None:
    (found,) = problems(recipe(folder, f"    - include: {folder.parent}/tasks/one.yaml\n"))
    assert "is not allowed: expected a file in" in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- name: one\n", "two.yml:1:1: expected the keys of one task, got a list"),
        ("", "two.yml:1:1: expected the keys of one task, got nothing"),
        ("name: [\n", "two.yml:2:1: the text is not YAML"),
        ("include: ../tasks/one.yaml\n", "two.yml:1:1: include: an included file cannot include another"),
        ("name: \xe4", "not UTF-8"),
        ("#" * (MAX_FILE_BYTES + 1), "the file is larger than"),
    ],
)
def test_invalid_content_of_an_included_file(folder: Path, text: str, message: str) -> None:
    (folder.parent / "tasks" / "two.yml").write_bytes(text.encode("latin-1"))
    (found,) = problems(recipe(folder, BOTH))
    assert message in found


def test_the_number_and_the_size_of_included_files_are_limited(folder: Path) -> None:
    many = "    - include: ../tasks/one.yaml\n" * (MAX_INCLUDES + 1)
    assert any(f"more than {MAX_INCLUDES} included files" in text for text in problems(recipe(folder, many)))
    (folder.parent / "tasks" / "one.yaml").write_text(ONE + "#" + "x" * (MAX_FILE_BYTES // 2))
    large = "    - include: ../tasks/one.yaml\n    - include: ../tasks/one.yaml\n      name: two\n"
    (found,) = problems(recipe(folder, large))
    assert "the recipe with its included files is larger than" in found


@pytest.mark.parametrize("tasks", ["    [{include: ../tasks/one.yaml}]\n", "    - {include: ../tasks/one.yaml}\n"])
def test_an_include_must_be_on_its_own_line(folder: Path, tasks: str) -> None:
    (found,) = problems(recipe(folder, tasks))
    assert "write `- include: FILE` on a line of its own" in found


def test_anchors_that_clash_are_refused(folder: Path) -> None:
    (folder.parent / "tasks" / "two.yml").write_text("name: &a two\nkind: image-classification\ndataset: {path: a/b}\n")
    tasks = "    - include: ../tasks/one.yaml\n      model: &a one\n    - include: ../tasks/two.yml\n      model: *a\n"
    (found,) = problems(recipe(folder, tasks))
    assert "have another meaning inside the recipe" in found


def test_a_parsed_text_cannot_include_files(folder: Path) -> None:
    with pytest.raises(RecipeError, match="a recipe that is parsed from text cannot include files") as caught:
        parse_recipe(HEAD + BOTH, path=folder / "recipe.yaml", catalog=CATALOG)
    assert len(caught.value.problems) == 2


def test_the_schema_allows_includes() -> None:
    validator = jsonschema.Draft202012Validator(json_schema(CATALOG))
    assert validator.is_valid(read_document(HEAD + BOTH, "recipe.yaml").data)
    assert not validator.is_valid(read_document(HEAD + "    - include: 3\n", "recipe.yaml").data)
    assert not validator.is_valid(read_document(HEAD + "    - includes: a.yaml\n", "recipe.yaml").data)
