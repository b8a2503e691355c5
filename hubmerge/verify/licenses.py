"""Check of the licenses in a report against the cards of the inputs at the locked commits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hubmerge.errors import HubmergeError
from hubmerge.hub.offline import is_offline
from hubmerge.stream.licenses import InputLicense, has_card, read_dataset_license, read_license, read_licenses
from hubmerge.support.text import counted
from hubmerge.verify.finding import Finding
from hubmerge.verify.published import Published
from merge_recipes.references import is_local_path


def check_licenses(published: Published) -> Iterator[Finding]:
    """Compare the licenses in the report with those in the cards. Cards in local folders are not compared.

    Reports of streams that version 0.1.0 began have no licenses.
    """
    yield from _check_datasets(published)
    report, stream = published.report, published.stream
    if stream is None or not report.base_model.licenses:
        return
    try:
        inputs = read_licenses(stream, report)
    except HubmergeError as error:  # a lock that was tampered with names commits that the report does not have
        yield Finding("report", "unknown", f"its licenses cannot be checked: {error.message}")
        return
    findings = [finding for one in inputs if not one.source.is_local if (finding := _check(one)) is not None]
    yield from findings
    if not findings:
        number = counted(len(inputs), "input")
        yield Finding("report", "same", f"its licenses are those in the cards of {number} at the locked commits")


def _check_datasets(published: Published) -> Iterator[Finding]:
    """Compare the licenses of the data sets; those of a task that was scored before they were read are not there."""
    read = [one for task in published.report.tasks for one in task.data]
    stated = {(one.path, one.commit): one.licenses for one in read if one.licenses}
    checked = 0
    for (dataset, commit), licenses in sorted(stated.items(), key=str):
        if is_local_path(dataset) or commit is None:
            continue
        try:
            found = read_dataset_license(dataset, commit)
        except HubmergeError as error:
            yield Finding("report", "unknown", f"the license of data set {dataset} cannot be checked: {error.message}")
            continue
        if (found,) != licenses:
            texts = ", ".join(one.text for one in licenses)
            detail = f"its license of data set {dataset} is {texts}, but the card there states {found.text}"
            yield Finding("report", "differs", detail)
        else:
            checked += 1
    if checked and checked == len(stated):
        number = counted(checked, "data set")
        yield Finding("report", "same", f"its licenses are those in the cards of {number} at the locked commits")


def _check(one: InputLicense) -> Finding | None:
    try:
        found = read_license(one.source)
    except HubmergeError as error:
        return Finding("report", "unknown", f"the license of {one.model} cannot be checked: {error.message}")
    if not one.license.languages:  # reports that were written before the languages were
        found = replace(found, languages=())
    if found == one.license:
        return None
    if is_offline() and not has_card(one.source):
        return Finding("report", "unknown", f"the license of {one.model} cannot be checked: its card is not cached")
    detail = f"its license of {one.model} is {one.license.text}, but the card there states {found.text}"
    if found.languages != one.license.languages:
        texts = [", ".join(languages) or "none" for languages in (one.license.languages, found.languages)]
        detail = f"its languages of {one.model} are {texts[0]}, but the card there states {texts[1]}"
    return Finding("report", "differs", detail)
