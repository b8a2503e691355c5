"""The JSON Schema, and the recipes that the project ships."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hubmerge.cli.main import main
from hubmerge.stream.catalog import installed_catalog
from merge_recipes import json_schema, load_recipe, task_entries
from merge_recipes.read_yaml import read_document
from tests.checks import every
from tests.merge_recipes.samples import CATALOG, RECIPE, sample

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
TASKS = sorted((RECIPES / "opcm" / "tasks").glob("*.yaml"))
STUDIES = sorted(RECIPES.rglob("studies/*.yaml"))
SHIPPED = sorted(set(RECIPES.rglob("*.yaml")) - {*TASKS, *STUDIES})
SHIPPED_SCHEMA = json.loads((RECIPES / "schema.json").read_text(encoding="utf-8"))
HEADER = "# yaml-language-server: $schema="


def matches(text: str, schema: dict[str, Any]) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(read_document(text, "sample.yaml").data)


def described(schema: Any) -> bool:
    """Tell whether every property has a description."""
    if isinstance(schema, list):
        return all(map(described, schema))
    if not isinstance(schema, dict):
        return True
    properties = schema.get("properties", {})
    return all("description" in value for value in properties.values()) and all(map(described, schema.values()))


def test_the_schema_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.Draft202012Validator.check_schema(json_schema(CATALOG))
    jsonschema.Draft202012Validator.check_schema(json_schema(installed_catalog()))


def test_every_key_is_described() -> None:
    assert described(json_schema())


def test_the_shipped_schema_is_up_to_date() -> None:
    """Run `hubmerge schema > recipes/schema.json` to update it."""
    assert json_schema(installed_catalog()) == SHIPPED_SCHEMA


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SHIPPED_SCHEMA


@pytest.mark.parametrize("path", SHIPPED, ids=[str(path.relative_to(RECIPES)) for path in SHIPPED])
def test_shipped_recipes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    load_recipe(path)
    assert matches(text, SHIPPED_SCHEMA)
    first = text.splitlines()[0]
    assert first.startswith(HEADER)
    assert (path.parent / first.removeprefix(HEADER)).resolve() == RECIPES / "schema.json"


@pytest.mark.parametrize("size", [8, 14, 20])
@pytest.mark.parametrize("model", ["base-patch32", "base-patch16", "large-patch14"])
def test_streams_of_the_paper(model: str, size: int) -> None:
    loaded = load_recipe(RECIPES / "opcm" / f"clip-vit-{model}" / f"{size}-tasks.yaml")
    entries, twenty = loaded.recipe.entries, ["sun397", "stanford-cars", "resisc45", "eurosat", "svhn", "gtsrb"]
    twenty += ["mnist", "dtd", "oxford_flowers102", "pcam", "fer2013", "oxford-iiit-pet", "stl10", "cifar100"]
    twenty += ["cifar10", "food101", "fashion_mnist", "emnist_letters", "kmnist", "rendered-sst2"]
    assert str(loaded.recipe.base_model) == f"openai/clip-vit-{model}"
    assert [entry.name for entry in entries] == twenty[:size]
    assert [str(entry.model) for entry in entries] == [f"tanganke/clip-vit-{model}_{name}" for name in twenty[:size]]
    assert task_entries(loaded.recipe) == {name: name for name in twenty[:size]}
    assert (loaded.recipe.merge_method, loaded.recipe.parameters) == ("opcm", {"alpha": 0.5})


def test_every_task_file_is_used() -> None:
    text = (RECIPES / "opcm" / "clip-vit-base-patch32" / "20-tasks.yaml").read_text(encoding="utf-8")
    assert every(f"- include: ../tasks/{path.name}\n" in text for path in TASKS)
    assert len(TASKS) == 20


WRONG = [
    ("steps: every", "steps: some"),
    ("dtype: float32", "dtpe: float32"),
    ("dtype: float32", "slices: []"),
    ("alpha: 0.5", "alpha: [0, {value: 1}]"),
    ("alpha: 0.5", "alpha: [{fliter: x, value: 1}]"),
    ("publish:\n  repo", "publish:\n  repos"),
    ("base_model: openai/clip-vit-base-patch32", "base_model: 3"),
    ("steps: every", "sign: ./key.pem"),
    ("steps: every", "sign: {}"),
    ("steps: every", "sign: {key: a, more: b}"),
]


def test_the_sample_matches() -> None:
    assert matches(RECIPE, json_schema())
    assert matches(RECIPE, json_schema(CATALOG))
    assert matches(sample(("steps: every", "sign: keyless")), json_schema())
    assert matches(sample(("steps: every", "sign: {key: ~/key.pem}")), json_schema())
    assert matches(sample(("alpha: 0.5", "alpha: [{filter: attn, value: 0.7}, {value: 0.5}]")), json_schema(CATALOG))


@pytest.mark.parametrize("change", WRONG)
def test_mistakes_do_not_match(change: tuple[str, str]) -> None:
    assert not matches(sample(change), json_schema())


@pytest.mark.parametrize(
    "change",
    [
        ("projection", "projction"),
        ("alpha: 0.5", "aplha: 0.5"),
        ("alpha: 0.5", "alpha: 1.5"),
        ("alpha: 0.5", "alpha: [{value: 1.5}]"),
        ("kind: zero-shot-image-classification", "kind: zero-shot"),
        ("_sun397\n", "_sun397\n    parameters: {rank_rule: paper}\n"),
    ],
)
def test_with_a_catalog_names_and_values_are_checked(change: tuple[str, str]) -> None:
    assert matches(sample(change), json_schema())
    assert not matches(sample(change), json_schema(CATALOG))
