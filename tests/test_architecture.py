"""The house plan, read from the imports: which package may know of which."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted([*ROOT.glob("hubmerge/**/*.py"), *ROOT.glob("merge_recipes/**/*.py")])

HEAVY = ("torch", "transformers", "datasets", "accelerate", "safetensors")
NETWORK = ("huggingface_hub", "httpx", "httpx2", "requests", "urllib", "socket", "http")

FORBIDDEN = {
    "merge_recipes": ("hubmerge", *HEAVY, *NETWORK),
    "hubmerge.errors": ("hubmerge", *HEAVY, *NETWORK),
    "hubmerge.linalg": ("hubmerge.methods", "hubmerge.hub", "hubmerge.run", "transformers", "datasets", *NETWORK),
    "hubmerge.methods": (
        "hubmerge.checkpoints",
        "hubmerge.executor",
        "hubmerge.hub",
        "pathlib",
        "os",
        "transformers",
        "datasets",
        *NETWORK,
    ),
    "hubmerge.checkpoints": ("hubmerge.hub", "hubmerge.executor", "hubmerge.run", "datasets", *NETWORK),
    "hubmerge.state": ("hubmerge.hub", "hubmerge.executor", "hubmerge.run", "transformers", *NETWORK),
    "hubmerge.executor": ("hubmerge.hub", "hubmerge.run", "hubmerge.evaluation", "transformers", *NETWORK),
    "hubmerge.evaluation": ("hubmerge.hub", "hubmerge.run", "hubmerge.executor", *NETWORK),
    "hubmerge.cards": ("hubmerge.hub", "hubmerge.run", "hubmerge.executor", "torch", "transformers"),
    "hubmerge.hub": ("hubmerge.run", "hubmerge.executor", "hubmerge.methods", "hubmerge.linalg", "torch"),
    "hubmerge.localhub": ("hubmerge.hub", "hubmerge.run", "huggingface_hub", "merge_recipes", *HEAVY),
    "hubmerge.study": (
        "hubmerge.cli",
        "hubmerge.commands",
        "hubmerge.demo",
        "hubmerge.localhub",
        "hubmerge.run",
        *NETWORK,
    ),
    "hubmerge.run": ("hubmerge.cli", "hubmerge.commands", "hubmerge.demo", "hubmerge.localhub"),
}
HUB_CLIENT_ALLOWED = ("hubmerge.hub", "hubmerge.cards")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def below(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_one_way(path: Path) -> None:
    name = module_name(path)
    for package, forbidden in FORBIDDEN.items():
        if not below(name, package):
            continue
        found = {used for used in imports(path) for banned in forbidden if below(used, banned)}
        wrong = sorted(used for used in found if not below(used, package))
        assert not wrong, f"{name} must not import {wrong}"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_only_the_hub_package_knows_the_client(path: Path) -> None:
    name = module_name(path)
    if any(below(name, allowed) for allowed in HUB_CLIENT_ALLOWED):
        return
    assert not [used for used in imports(path) if below(used, "huggingface_hub")], f"{name} must ask hubmerge.hub"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
