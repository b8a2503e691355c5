"""Blocks of YAML, JSON, TOML and Python in the documentation are valid, and none is left out unnoticed."""

from __future__ import annotations

import json
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


def recipes_of(block: Block) -> list[dict[str, Any]]:
    """Return the recipes that a block stands for: whole ones, or the keys that it shows in a small recipe."""
    try:
        documents = list(yaml.safe_load_all(block.text))
        repeated = len({line.split(":")[0] for line in top_keys(block.text)}) < len(top_keys(block.text))
    except yaml.YAMLError:
        return []
    if "---" in block.text.splitlines() or not repeated:
        return [whole(document) for document in documents]
    return [whole(yaml.safe_load(line)) for line in top_keys(block.text)]  # several choices for one key


def top_keys(text: str) -> list[str]:
    return [line for line in text.splitlines() if line[:1].isalpha()]


def whole(keys: dict[str, Any]) -> dict[str, Any]:
    if "merge_method" in keys:
        return keys
    base = SLERP if "t" in keys.get("parameters", {}) else RECIPE
    if any("revoke" in model for model in keys.get("models", ())):
        base = {**RECIPE, "merge_method": "wudi"}
    return {**base, **keys}


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
        texts = [block.text] if "merge_method" in keys else list(map(yaml.safe_dump, recipes_of(block)))
        assert texts
        for text in texts:
            path = tmp_path / "recipes" / "recipe.yaml"
            path.write_text(text, encoding="utf-8")
            assert str(hubmerge.check(path)).startswith(("OK", "valid")), text


def test_json_and_toml_are_valid() -> None:
    for block in blocks("json"):
        for line in block.text.splitlines():
            json.loads(line)
    if sys.version_info >= (3, 11):
        import tomllib

        for block in blocks("toml"):
            tomllib.loads(block.text)
