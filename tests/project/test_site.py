"""The documentation builds as a site without a warning, is complete, and asks no other server for anything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

import hubmerge
from hubmerge.cli.app import app
from tests.built_site import site
from tests.shared import ROOT
from website import hooks, python_names

__all__ = ["site"]  # fixture

REQUEST = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=["'](?:https?:)?//""")


def test_every_page_under_docs_is_in_the_site(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert "recipes" in pages
    assert pages <= {path.stem for path in site.glob("*.html")}


def test_no_page_asks_another_server(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert pages
    for page in pages:
        assert not REQUEST.search(page.read_text(encoding="utf-8")), page.name


def test_links_lead_to_files(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert pages
    for page in pages:
        for target in re.findall(r'href="(?!\w+:)([^"#?]+)', page.read_text(encoding="utf-8")):
            assert target.startswith("/") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_references_are_complete(site: Path) -> None:
    commands = (site / "reference" / "command-line.html").read_text(encoding="utf-8")
    for command in get_command(app).commands:  # type: ignore[attr-defined]
        assert f"hubmerge {command}" in commands
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    for name in hubmerge.__all__:
        assert name.startswith("__") or re.search(rf'id="[\w.]+\.{name}"', python), name
    keys = (site / "reference" / "recipe-keys.html").read_text(encoding="utf-8")
    for key in ("merge_method", "max_examples", "on_update", "subspace_boost"):
        assert key in keys


def test_every_public_name_has_a_group() -> None:
    assert python_names.page().count("\n::: ") == len([name for name in hubmerge.__all__ if not name.startswith("__")])


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("recipes.md", "../CONTRIBUTING.md", "contributing.md"),
        ("recipes.md", "streams.md#offline", "streams.md#offline"),
        ("contributing.md", "docs/methods.md#plug-ins", "methods.md#plug-ins"),
        ("reference/recipe-keys.md", "../recipes.md", "../recipes.md"),
        ("demo.md", "../recipes/quickstart.yaml", "recipes/quickstart.yaml"),
        ("demo.md", "../README.md", "index.md"),
    ],
)
def test_links_between_pages_and_files(page: str, link: str, expected: str) -> None:
    class Page:
        class file:  # noqa: N801 - the attribute of MkDocs
            src_uri = page

    assert hooks.on_page_markdown(f"[x]({link})", Page()) == f"[x]({expected})"
