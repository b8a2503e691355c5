"""The plan of the house; what may import what is declared in pyproject.toml and checked by import-linter."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted([*ROOT.glob("hubmerge/**/*.py"), *ROOT.glob("merge_recipes/**/*.py")])
TESTS = sorted(ROOT.glob("tests/**/*.py"))


def test_the_top_of_the_package_holds_packages() -> None:
    modules = {path.name for path in (ROOT / "hubmerge").glob("*.py")}
    assert modules <= {"__init__.py", "__main__.py", "api.py", "errors.py"}


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_modules_and_functions_stay_small(path: Path) -> None:
    assert lines_of(path) <= 300
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
    assert not [one.name for one in functions if (one.end_lineno or one.lineno) - one.lineno >= 40]


def test_modules_of_tests_stay_small() -> None:
    assert Path(__file__).resolve() in TESTS
    assert not {path.relative_to(ROOT).as_posix(): lines for path in TESTS if (lines := lines_of(path)) > 300}
