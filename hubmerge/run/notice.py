"""The file NOTICE of a merged model: the licenses of its inputs, and the notices that came with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hubmerge.errors import HubError
from hubmerge.plan.licenses import PlannedLicenses
from hubmerge.report.licenses import License
from hubmerge.report.report import RunReport
from hubmerge.stream.licenses import InputLicense, read_text
from hubmerge.support.text import short_commit

MAX_TEXT_BYTES = 64 << 10
"""Size of the largest notice of an input whose text is repeated."""

MAX_ALL_BYTES = 256 << 10
"""Size of all repeated notices together; later ones are named and not repeated."""


def write_notice(path: Path, report: RunReport, merged: License, licenses: PlannedLicenses) -> None:
    """Write the file NOTICE of the last step of a report.

    Args:
        path: The file.
        report: The report, with the licenses.
        merged: License of the merged model.
        licenses: The inputs, whose notices are read.

    Raises:
        HubError: A notice of the last step cannot be read.
    """
    from hubmerge.cards import notice_text, stated_licenses  # matplotlib takes a second to import

    names = {one.name for one in stated_licenses(report)}
    inputs = [one for one in licenses.inputs if one.name in names]
    path.write_text(
        notice_text(report, merged, list(_texts(inputs, report.models[-1].name))), encoding="utf-8", newline="\n"
    )


def _texts(inputs: list[InputLicense], newest: str) -> Iterator[tuple[str, str]]:
    """Yield title and text of each notice of the inputs, equal texts once; that of the newest entry has to exist."""
    from hubmerge.cards import notice_files

    seen: set[str] = set()
    left = MAX_ALL_BYTES
    for one in inputs:
        for name in notice_files(one.license):
            text = _text(one, name, min(left, MAX_TEXT_BYTES), required=one.entry == newest)
            if text in seen:
                continue
            seen.add(text)
            left -= len(text.encode())
            yield f"{name} of {one.model} at {short_commit(one.source.commit)}", text


def _text(one: InputLicense, name: str, most: int, *, required: bool) -> str:
    try:
        text = read_text(one.source, name, most)
    except HubError:
        if required:
            raise
        return "(The file can no longer be read there.)"
    return "(The file is too long to be repeated here.)" if text is None else text
