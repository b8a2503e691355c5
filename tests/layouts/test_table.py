"""The tables of docs/layouts.md are those of the tests."""

from __future__ import annotations

import ast

from tests.layouts.table import PAGE, ROOT, generated, held_by, page_with


def test_the_tables_of_the_page_are_current() -> None:
    hint = "run: python -m tests.layouts.table"
    assert page_with(generated()) == PAGE.read_text(encoding="utf-8"), hint


def test_every_line_of_the_tables_is_held_by_a_test_that_exists() -> None:
    assert len(held_by()) > 4
    for test in held_by():
        file, _, function = test.partition("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test
