"""docs/automation.md: its recipes are valid and its commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from merge_recipes import parse_recipe
from tests.cli.parsing import parse

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "automation.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (?:[A-Z_]+=\S+ )*hubmerge (.*)$", PAGE, re.MULTILINE)


def test_recipes_are_valid() -> None:
    recipes = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert recipes
    for recipe in recipes:
        assert parse_recipe(recipe).recipe.publish is not None


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist(command: str) -> None:
    parsed = parse(shlex.split(command))
    assert parsed.get("recipe", Path(*parsed.get("names", ()))) == Path("recipe.yaml")


def test_every_command_is_shown() -> None:
    assert {command.split()[0] for command in COMMANDS} == {"outdated", "init", "deploy", "watch"}
    assert "hubmerge lock recipe.yaml" in PAGE
    assert "hubmerge run --locked" in PAGE
