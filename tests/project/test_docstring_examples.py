"""Tests that run the examples in the docstrings of all modules but the public API, which has tests of its own."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def modules_with_examples() -> list[str]:
    """Return the names of the modules whose source contains an example."""
    sources = [path for package in ("hubmerge", "merge_recipes") for path in sorted((ROOT / package).rglob("*.py"))]
    paths = [path.relative_to(ROOT).with_suffix("") for path in sources if ">>> " in path.read_text(encoding="utf-8")]
    return [".".join(path.parts) for path in paths if path.parts[:2] != ("hubmerge", "api")]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_give_what_they_show(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0
