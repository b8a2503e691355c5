"""The examples in the docstrings of the public functions run and give what they show."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import hubmerge.api as api

MODULES = [f"hubmerge.api.{module.name}" for module in pkgutil.iter_modules(api.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    count = sum(bool(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name)))
    assert count >= 6
