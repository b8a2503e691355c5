"""The reference for users says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from merge_recipes import (
    DatasetReference,
    Evaluate,
    Lock,
    ModelCollection,
    ModelQuery,
    Publish,
    Recipe,
    StreamEntry,
    Task,
    TensorRules,
    parse_recipe,
)
from merge_recipes.mergekit import OTHER_KEYS
from merge_recipes.slices import LayerSource, Slice
from merge_recipes.yaml_nodes import MAX_DEPTH, MAX_NODES
from tests.checks import every

DOCS = Path(__file__).resolve().parents[2] / "docs"
REFERENCE = "\n".join((DOCS / page).read_text(encoding="utf-8") for page in ("recipes.md", "evaluation.md"))
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", REFERENCE, flags=re.MULTILINE | re.DOTALL)
RECIPES = [block for block in BLOCKS if "merge_method:" in block and "\n---\n" not in block]
STAGES = [block for block in BLOCKS if "\n---\n" in block]
TABLES = [
    {row.split("|")[1].strip().strip("`"): row for row in table.splitlines()[2:]}
    for table in re.findall(r"^\| key \|.*?(?=\n\n)", REFERENCE, flags=re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize("number", range(len(RECIPES)))
def test_its_recipes_are_right(number: int) -> None:
    assert parse_recipe(RECIPES[number]).recipe.merge_method == "opcm"


def test_its_file_of_several_documents_is_right() -> None:
    (text,) = STAGES
    assert parse_recipe(text).recipe.merge_method == "linear"


def test_it_has_recipes_and_a_lock() -> None:
    locks = [block for block in BLOCKS if block.startswith("version:")]
    assert len(RECIPES) == 3
    assert [Lock.from_yaml(block).version for block in locks] == [1]


@pytest.mark.parametrize(
    "part", [Recipe, StreamEntry, Slice, LayerSource, TensorRules, Evaluate, Task, DatasetReference, Publish]
)
def test_its_tables_have_every_key(part: type[BaseModel]) -> None:
    assert list(part.model_fields) in [list(table) for table in TABLES]


def test_its_table_of_queries_has_every_key() -> None:
    assert [*ModelQuery.model_fields, *ModelCollection.model_fields] in [list(table) for table in TABLES]


@pytest.mark.parametrize("part", [Recipe, Evaluate, Task, DatasetReference, Publish])
def test_its_defaults_are_those_of_the_code(part: type[BaseModel]) -> None:
    rows = next(table for table in TABLES if list(table) == list(part.model_fields))
    for name, field in part.model_fields.items():
        default = rows[name].split("|")[3].strip().strip("`")
        if field.is_required():
            assert default == "required"
        elif isinstance(field.default, bool):
            assert default == str(field.default).lower()
        elif isinstance(field.default, str | int):
            assert default == str(field.default)


def test_it_names_the_limits_and_what_is_refused() -> None:
    assert f"{MAX_NODES:,} values" in REFERENCE
    assert f"{MAX_DEPTH} levels" in REFERENCE
    section = REFERENCE.partition("## Coming from mergekit")[2]
    mergekit = {key for key, sentence in OTHER_KEYS.items() if "mergekit's" in sentence}
    named = {"modules", "layer_range"}
    assert named < mergekit
    assert every(f"`{key}`" in section for key in {*named, "slices", "tokenizer_source", "tokenizer", "chat_template"})
