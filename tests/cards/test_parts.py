"""Sections of the card on heads and on modules: texts of strangers are escaped."""

from __future__ import annotations

import pytest

from hubmerge.cards.licenses import license_section
from hubmerge.cards.parts import HeadFacts, ModuleFacts, heads_text, modules_text
from hubmerge.report.licenses import License
from tests.cards.test_licenses import MIT, report

ODD = "<b>x</b> | [y](http://z) **w**\n# v"


def escaped(text: str) -> bool:
    """Return True if nothing of the odd text acts as HTML, a link, bold type or a heading."""
    outside = "".join(text.split("`")[::2])
    return not any(mark in outside for mark in ("<b>", "](http:", " **w", "\n# v"))


def test_an_odd_text_is_not_escaped_by_itself() -> None:
    assert not escaped(ODD)


@pytest.mark.parametrize("facts", [ModuleFacts(ODD, "1_x"), ModuleFacts("Pooling", ODD, ODD, has_weights=True)])
def test_modules_are_escaped(facts: ModuleFacts) -> None:
    assert escaped("\n".join(modules_text([facts])))


def test_heads_are_escaped() -> None:
    parts = heads_text([HeadFacts("one", ODD, (ODD, ODD), ODD)], "me/merged", "step-01")
    assert escaped("\n".join(parts))


def test_licenses_are_escaped() -> None:
    odd = License((ODD,), ODD, ODD, (ODD,))
    assert escaped("\n".join(license_section(report(MIT, odd, MIT), odd, notice=True)[1:]))
