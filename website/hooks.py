"""Hooks of MkDocs: pages that are generated or lie outside docs/, and links between all of them."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

from website import commands, python_names, recipe_keys

ROOT = Path(__file__).resolve().parents[1]
# Files at the top of the repository, and their pages.
TOP_PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security-policy.md"}
ASSETS = ("recipes/quickstart.yaml", "examples/living_merge.ipynb")
_LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)((?:#[^)\s]*)?)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, and the pages and files that lie outside docs/."""
    pages = {
        "reference/command-line.md": commands.page(),
        "reference/recipe-keys.md": recipe_keys.page(ROOT),
        "reference/python.md": python_names.page(),
    }
    for source, page in TOP_PAGES.items():
        pages[page] = (ROOT / source).read_text(encoding="utf-8")
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    for asset in ASSETS:
        files.append(File.generated(config, asset, abs_src_path=str(ROOT / asset)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the page with its links to files outside docs/ changed into links inside the site."""
    source = next((name for name, path in TOP_PAGES.items() if path == page.file.src_uri), None)
    folder = PurePosixPath("." if source else "docs") / ("" if source else PurePosixPath(page.file.src_uri).parent)
    depth = "../" * page.file.src_uri.count("/")

    def changed(match: re.Match[str]) -> str:
        target = _resolve(folder / match[1])
        if target in TOP_PAGES:
            return f"]({depth}{TOP_PAGES[target]}{match[2]})"
        if target == "README.md":
            return f"]({depth}index.md)"
        if target in ASSETS:
            return f"]({depth}{target})"
        if target.startswith("docs/"):
            return f"]({depth}{target.removeprefix('docs/')}{match[2]})"
        return match[0] if target.startswith("reference/") else f"](#)<!-- {target} -->"

    return _LINK.sub(changed, markdown)


def _resolve(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
