"""The table of licenses, its documentation, and the license that a recipe states."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hubmerge.stream.catalog import installed_catalog
from merge_recipes import RecipeError, parse_recipe
from merge_recipes.licenses import HUB_LICENSES, Family, family_of, is_license_link, nearest_license

PAGE = Path(__file__).resolve().parents[2] / "docs" / "licenses.md"
RECIPE = "merge_method: opcm\nbase_model: me/base\nmodels:\n  - model: me/a\npublish:\n  repo: me/merged\n"


def problems(*lines: str) -> list[tuple[int | None, str, str]]:
    """Return line, key and message of each problem of a recipe with more lines in `publish`."""
    text = RECIPE + "".join(f"  {line}\n" for line in lines)
    try:
        parse_recipe(text, catalog=installed_catalog())
    except RecipeError as error:
        return [(problem.line, problem.key, problem.message) for problem in error.problems]
    return []


def test_every_family_of_the_page_is_that_of_the_table() -> None:
    rows = re.findall(r"(?m)^\| ([a-z -]+) \| [^|]+ \| (`.*`) \|$", PAGE.read_text(encoding="utf-8"))
    listed = {name: family for family, names in rows for name in re.findall(r"`([^`]+)`", names)}
    assert listed == {name: family.value for name, family in HUB_LICENSES.items()}


def test_identifiers_have_the_family_that_their_name_says() -> None:
    for name, family in HUB_LICENSES.items():
        if "-nd-" in name:
            assert family is Family.NO_DERIVATIVES
        elif "-nc-" in name or "noncommercial" in name:
            assert family is Family.NON_COMMERCIAL
        elif "-sa-" in name or name.startswith(("gpl", "agpl")):
            assert family is Family.STRONG_COPYLEFT
        elif name.startswith("lgpl"):
            assert family is Family.WEAK_COPYLEFT
        elif "rail" in name or name.startswith(("llama", "gemma")):
            assert family is Family.OWN_TERMS


def test_the_most_restrictive_of_several_counts() -> None:
    assert family_of(["mit", "gpl-3.0"]) is Family.STRONG_COPYLEFT
    assert family_of(["gpl-3.0", "cc-by-nc-4.0", "mit"]) is Family.NON_COMMERCIAL
    assert family_of(["mit", "my-own"]) is Family.UNKNOWN
    assert family_of(["cc-by-nc-4.0", "my-own"]) is Family.NON_COMMERCIAL


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Apache 2", "apache-2.0"),
        ("Apache-2.0", "apache-2.0"),
        ("Apache License 2.0", "apache-2.0"),
        ("MIT", "mit"),
        ("gpl3", "gpl-3.0"),
        ("GPLv3", "gpl-3.0"),
        ("CC BY-NC 4.0", "cc-by-nc-4.0"),
        ("cc_by_sa_4.0", "cc-by-sa-4.0"),
        ("bsd 3 clause", "bsd-3-clause"),
        ("llama-3", "llama3"),
    ],
)
def test_a_license_that_the_hub_refuses_is_refused_with_its_line(written: str, meant: str) -> None:
    assert nearest_license(written) == meant
    message = f'"{written}" is not a license identifier of the Hub; did you mean {meant}?'
    assert problems(f"license: {written}") == [(7, "publish.license", message)]


def test_a_license_without_a_neighbor_is_refused_too() -> None:
    (problem,) = problems("license: qqqqqq")
    assert problem == (7, "publish.license", '"qqqqqq" is not a license identifier of the Hub')


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("license: other", "license_name: mine", "license_link: LICENSE"), None),
        (("license: other", "license_name: mine", "license_link: https://example.org/a?b=c"), None),
        (("license: llama3", "license_link: LICENSE.md"), None),
        (("license: other", "license_name: mine"), "`license: other` needs a license_link"),
        (("license: other", "license_link: LICENSE"), "`license: other` needs a license_name"),
        (("license: other", "license_name: mine", "license_link: terms.txt"), '"terms.txt" is not a link to a license'),
        (("license: mit", "license_link: /etc/passwd"), '"/etc/passwd" is not a link to a license'),
        (("license_name: mine",), "this key needs `license` beside it"),
        (("license_link: LICENSE",), "this key needs `license` beside it"),
    ],
)
def test_name_and_link_of_a_license_are_checked(lines: tuple[str, ...], expected: str | None) -> None:
    messages = [message for _, _, message in problems(*lines)]
    assert len(messages) == (expected is not None)
    assert expected is None or messages[0].startswith(expected)


def test_all_problems_are_listed_at_once() -> None:
    assert [key for _, key, _ in problems("license: Apache 2", "license_link: there", "tags: [1]")] == [
        "publish.license",
        "publish.license_link",
        "publish.tags[0]",
    ]


@pytest.mark.parametrize(
    "link", ["license", "LICENSE.txt", "ftp://a/b", "https://", "https://a b", "https://me:pw@a/b"]
)
def test_other_links_are_no_license_links(link: str) -> None:
    assert not is_license_link(link)
