"""Checks of the license that a recipe states for the merged model, by the rules of the Hub."""

from __future__ import annotations

from collections.abc import Iterator

from merge_recipes.errors import Problem, format_value
from merge_recipes.licenses import HUB_LICENSES, OTHER, is_license_link, nearest_license
from merge_recipes.read_yaml import Document
from merge_recipes.rules import mapping_at

UNLISTED = "license: other, license_name: my-license, license_link: LICENSE"
"""Keys of `publish` for a license that the Hub does not list."""


def license_problems(document: Document) -> list[Problem]:
    """Return one problem for each key of `publish` about the license that the Hub would refuse."""
    publish = mapping_at(document, "publish")
    return [*_identifier(document, publish.get("license")), *_name_and_link(document, publish)]


def _identifier(document: Document, stated: object) -> Iterator[Problem]:
    if not isinstance(stated, str) or not stated or stated in HUB_LICENSES:
        return
    match = nearest_license(stated)
    guess = "" if match is None else f"; did you mean {match}?"
    hint = f"write `license: {match}`" if match is not None else f"write `{UNLISTED}`"
    message = f"{format_value(stated)} is not a license identifier of the Hub{guess}"
    yield document.problem(("publish", "license"), message, f"{hint}; all identifiers are in docs/licenses.md")


def _name_and_link(document: Document, publish: dict[str, object]) -> Iterator[Problem]:
    name, link = publish.get("license_name"), publish.get("license_link")
    if publish.get("license") is None and (name is not None or link is not None):
        key = "license_link" if name is None else "license_name"
        yield document.problem(("publish", key), "this key needs `license` beside it", f"write `{UNLISTED}`")
    if isinstance(link, str) and link and not is_license_link(link):
        message = f"{format_value(link)} is not a link to a license: expected LICENSE, LICENSE.md or a web address"
        yield document.problem(("publish", "license_link"), message, "write `license_link: LICENSE`")
    if publish.get("license") == OTHER and (name is None) != (link is None):
        missing = "license_name" if name is None else "license_link"
        yield document.problem(("publish", "license"), f"`license: other` needs a {missing}", f"write `{UNLISTED}`")
