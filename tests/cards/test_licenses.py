"""Licenses of the inputs in the card, and the file NOTICE."""

from __future__ import annotations

from dataclasses import replace

from hubmerge.cards import needs_notice, notice_text, stated_licenses
from hubmerge.cards.licenses import license_section
from hubmerge.report.licenses import NO_LICENSE, License
from hubmerge.report.report import RunReport
from tests.cards.samples import sample_report

MIT, NC = License(("mit",)), License(("cc-by-nc-4.0",))


def report(*licenses: License) -> RunReport:
    """Return a report whose base model has the license MIT, and its checkpoints these."""
    sample = sample_report()
    steps = tuple(replace(step, licenses=(one,)) for step, one in zip(sample.steps, licenses, strict=True))
    return replace(sample, base_model=replace(sample.base_model, licenses=(MIT,)), steps=steps)


def test_the_section_lists_inputs_by_license() -> None:
    heading, text = license_section(report(MIT, NC, NO_LICENSE), NC, notice=True)
    assert heading == "## Licenses"
    assert text.startswith("This model: cc-by-nc-4.0. Its inputs, as their cards state it at the pinned commits:")
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert rows == [
        "| mit | permissive | base model, sun397 |",
        "| cc-by-nc-4.0 | non-commercial | mnist |",
        "| unknown | unknown | pets |",
    ]
    assert "[NOTICE](NOTICE)" in text
    assert license_section(sample_report(), MIT, notice=False) == []


def test_revoked_entries_are_no_inputs() -> None:
    changed = report(MIT, NC, NC)
    steps = (*changed.steps[:2], replace(changed.steps[2], revokes="mnist"))
    assert [one.name for one in stated_licenses(replace(changed, steps=steps))] == ["base model", "sun397"]


def test_a_notice_is_needed_for_other_licenses_and_for_notices() -> None:
    assert not needs_notice(report(MIT, MIT, MIT), MIT)
    assert needs_notice(report(MIT, MIT, NC), MIT)
    assert needs_notice(report(MIT, MIT, MIT), NC)
    assert needs_notice(report(MIT, MIT, replace(MIT, files=("NOTICE.md",))), MIT)
    assert not needs_notice(report(MIT, MIT, replace(MIT, files=("LICENSE",))), MIT)
    assert not needs_notice(sample_report(), MIT)


def test_the_notice_names_every_input_on_one_line() -> None:
    odd = License(("other",), "a\nb", "https://example.org/license", ("LICENSE", "NOTICE"))
    text = notice_text(report(MIT, odd, MIT), odd, [("NOTICE of me/x\nat 1", "Text\n")])
    lines = text.splitlines()
    assert lines[0] == "This model was merged from the models below. Its license: other (a b)."
    (line,) = [line for line in lines if line.startswith("mnist: ")]
    assert line.endswith(": other (a b), https://example.org/license; see LICENSE, NOTICE there")
    assert lines[-5:] == ["-" * 80, "NOTICE of me/x at 1", "-" * 80, "", "Text"]
