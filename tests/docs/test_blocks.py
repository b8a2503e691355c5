"""Blocks of YAML, JSON, TOML and Python in the documentation are valid, and none is left out unnoticed."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import hubmerge
from hubmerge.stream.catalog import installed_catalog
from hubmerge.study import load_study
from merge_recipes import Lock
from tests.docs.blocks import OUTPUTS, ROOT, SHELLS, Block, blocks, command_lines
from tests.docs.not_run import NOT_RUN

CHECKED = {"yaml", "python", "json", "toml"}
RECIPE = {"merge_method": "opcm", "base_model": "me/base", "models": [{"model": "me/letters"}]}
SLERP = {**RECIPE, "merge_method": "slerp"}
BLOCKS = blocks("yaml")


def test_every_language_is_known() -> None:
    assert {block.language for block in blocks()} >= {"bash", "yaml", "python", "json"}
    for block in blocks():
        assert block.language in CHECKED | {*SHELLS, *OUTPUTS}, block.place
        lines = block.text.splitlines()
        if block.language in OUTPUTS:
            commands = [line for line in lines if line.startswith(("hubmerge ", "python ", "$ ", "pip "))]
            assert commands == [], f"{block.place}: name the language of the block"


def test_whatever_is_not_run_is_in_the_documentation() -> None:
    lines = command_lines()
    for beginning, reason in NOT_RUN.items():
        assert reason
        assert any(" ".join(line.words).startswith(beginning) for line in lines), f"no command begins with {beginning}"


def recipes_of(block: Block) -> list[str]:
    """Return the recipes that a block stands for: a whole one, or the keys that it shows in small recipes."""
    if "merge_method" in next(iter(yaml.safe_load_all(block.text))):
        return [block.text]
    keys = top_keys(block.text)
    if "---" in block.text.splitlines():
        texts = block.text.split("---\n")
    elif len({line.split(":")[0] for line in keys}) < len(keys):
        texts = keys  # several choices for one key
    else:
        texts = [block.text]
    return [yaml.safe_dump(others(yaml.safe_load(text))) + text for text in texts]


def top_keys(text: str) -> list[str]:
    return [line for line in text.splitlines() if line[:1].isalpha()]


def others(keys: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a small recipe that a recipe with some keys lacks."""
    base = SLERP if "t" in keys.get("parameters", {}) else RECIPE
    if "read" in keys or any("revoke" in model for model in keys.get("models", ())):
        base = {**RECIPE, "merge_method": "wudi"}
    return {key: value for key, value in base.items() if key not in keys}


def definitions() -> dict[str, Block]:
    """Return the definitions of tasks of lm-evaluation-harness, by the names of their files in the text before."""
    return {file_name(block): block for block in BLOCKS if is_definition(block)}


def is_definition(block: Block) -> bool:
    return "output_type" in next(iter(yaml.safe_load_all(block.text)))


def file_name(block: Block) -> str:
    """Return the name of a file in the paragraph before a block, which ends two lines above its first line."""
    before = (ROOT / block.document).read_text(encoding="utf-8").splitlines()[: block.line - 1]
    (name,) = re.findall(r"`(\S+\.yaml)`", before[-3])
    return str(name)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_recipes_studies_and_locks_are_valid(block: Block, tmp_path: Path) -> None:
    keys = next(iter(yaml.safe_load_all(block.text)))
    if "version" in keys:
        Lock.from_yaml(block.text, file=block.place)
    elif "methods" in keys:
        shutil.copy(ROOT / "recipes" / "quickstart.yaml", tmp_path)
        (tmp_path / "study.yaml").write_text(block.text, encoding="utf-8")
        load_study(tmp_path / "study.yaml", installed_catalog())
    else:
        (tmp_path / "recipes").mkdir()
        shutil.copytree(ROOT / "recipes" / "opcm" / "tasks", tmp_path / "tasks")
        for name, definition in definitions().items():
            (tmp_path / "recipes" / name).write_text(definition.text, encoding="utf-8")
        texts = recipes_of(block)
        if is_definition(block):
            task = {"name": "own", "kind": "lm-eval", "task": f"./{file_name(block)}"}
            texts = [yaml.safe_dump({**RECIPE, "evaluate": {"tasks": [task]}})]
        assert texts
        for text in texts:
            path = tmp_path / "recipes" / "recipe.yaml"
            path.write_text(text, encoding="utf-8")
            assert str(hubmerge.check(path)).startswith(("OK", "valid")), text


def test_json_and_toml_are_valid() -> None:
    assert blocks("json")
    assert blocks("toml")
    for block in blocks("json"):
        for line in block.text.splitlines():
            json.loads(line)
    if sys.version_info >= (3, 11):
        import tomllib

        for block in blocks("toml"):
            tomllib.loads(block.text)
