"""The plan of the house; what may import what is declared in pyproject.toml and checked by import-linter."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(path for folder in ("hubmerge", "merge_recipes", "tests") for path in (ROOT / folder).glob("**/*.py"))


def test_the_top_of_the_package_holds_packages() -> None:
    modules = {path.name for path in (ROOT / "hubmerge").glob("*.py")}
    assert modules <= {"__init__.py", "__main__.py", "api.py", "errors.py"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_modules_and_functions_stay_small(path: Path) -> None:
    content = path.read_text(encoding="utf-8")
    assert len(content.splitlines()) <= 300
    functions = (one for one in ast.walk(ast.parse(content)) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
    assert not [one.name for one in functions if (one.end_lineno or one.lineno) - one.lineno >= 40]
