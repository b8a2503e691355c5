"""The plan of the house; what may import what is declared in pyproject.toml and checked by import-linter."""

from __future__ import annotations

import ast
import re
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


def long_functions(path: Path) -> list[str]:
    """Return the functions of a module that are longer than 40 lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
    return [one.name for one in functions if (one.end_lineno or one.lineno) - one.lineno >= 40]


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_modules_and_functions_stay_small(path: Path) -> None:
    assert lines_of(path) <= 300
    assert not long_functions(path)


def test_modules_of_tests_stay_small() -> None:
    assert Path(__file__).resolve() in TESTS
    assert not {path.relative_to(ROOT).as_posix(): lines for path in TESTS if (lines := lines_of(path)) > 300}
    assert not {path.relative_to(ROOT).as_posix(): long for path in TESTS if (long := long_functions(path))}


def parts_of(test: ast.expr) -> list[ast.expr]:
    """Return what an assertion joins with `and` and `or`."""
    return [part for value in test.values for part in parts_of(value)] if isinstance(test, ast.BoolOp) else [test]


def test_no_assertion_holds_because_there_is_nothing_to_check() -> None:
    asserted = [
        (path.relative_to(ROOT).as_posix(), part)
        for path in TESTS
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
        for part in parts_of(node.test)
    ]
    called = [(path, part.lineno, ast.unparse(part.func)) for path, part in asserted if isinstance(part, ast.Call)]
    assert ("tests/automation/test_watch.py", "every") in {(path, name) for path, _, name in called}
    assert not [f"{path}:{line}" for path, line, name in called if name == "all"], "use tests.checks.every"


REPO = re.compile(r"(local|hubmerge-demo)/[\w.-]+")
NEVER_PUBLISHED = {"local/base", "local/never-made", "local/nowhere", "local/x"}
ON_A_HUB_OF_THEIR_OWN = {"local/ties-3", "hubmerge-demo/tiny-clip"}


def named_repos(tree: ast.AST) -> set[str]:
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {text for text in texts if isinstance(text, str) and REPO.fullmatch(text)}


def test_a_repo_with_a_fixed_name_belongs_to_one_module() -> None:
    """All modules that run in one process publish to one Hub."""
    modules: dict[str, set[str]] = {}
    for path in TESTS:
        for repo in named_repos(ast.parse(path.read_text(encoding="utf-8"))):
            modules.setdefault(repo, set()).add(path.relative_to(ROOT).as_posix())
    assert modules.keys() >= NEVER_PUBLISHED | ON_A_HUB_OF_THEIR_OWN
    shared = {repo: places for repo, places in modules.items() if len(places) > 1}
    assert not {repo: shared[repo] for repo in shared.keys() - NEVER_PUBLISHED - ON_A_HUB_OF_THEIR_OWN}


def test_fixtures_of_several_modules_publish_to_repos_of_their_own() -> None:
    """A fixture that stands outside of the test modules and is not made once for all is made again for each."""
    made_once, made_again = set(), {}
    for path in TESTS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if path.name.startswith("test_") or not isinstance(node, ast.FunctionDef):
                continue
            kinds = [kind for kind in map(ast.unparse, node.decorator_list) if kind.startswith("pytest.fixture")]
            if "session" in "".join(kinds):
                made_once.add(node.name)
            elif kinds:
                made_again[f"{path.relative_to(ROOT).as_posix()}: {node.name}"] = named_repos(node)
    assert "stage" in made_once
    assert "tests/verify/signed.py: original" in made_again
    assert not {name: repos for name, repos in made_again.items() if repos}
