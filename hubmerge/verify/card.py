"""Comparison of a published card with its report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hubmerge.cards import CARD_FORM, card_data, card_form, data_differences, license_of, own_part
from hubmerge.cards.data import LISTED_DATASETS, front_matter
from hubmerge.checkpoints import open_checkpoint
from hubmerge.errors import HubError
from hubmerge.hub import fetch
from hubmerge.hub.published import PublishedStep, download_published_step
from hubmerge.report.licenses import License
from hubmerge.report.report import RunReport
from hubmerge.run.metadata_files import ModelFiles, card_for, license_of_step
from hubmerge.stream.stream import Stream
from hubmerge.support.names import CARD_FILE, NOTICE_FILE, RECIPE_FILE
from hubmerge.verify.finding import Finding
from hubmerge.verify.kept import without_kept_metadata

OLDEST_FORM = {1: 1, 2: 2, 3: 3}
"""The oldest form of cards that versions with a form of reports write, by the version of the report's form."""


def compare_card(release: PublishedStep, report: RunReport, stream: Stream) -> Iterator[Finding]:
    """Compare the published card with the one that this version writes from the report.

    A card with the wording of this version must be the same text. A card of another version must hold the same data.
    """
    found = release.metadata_files[CARD_FILE]
    form = card_form(found)
    model_license = license_of(found)
    try:
        model_license = _expected_license(release, report, stream, form)
    except HubError as error:
        yield Finding("card", "unknown", f"the license cannot be checked: {error.message}")
    expected = _expected_card(release, report, stream, model_license, form)
    found, additions = own_part(found)
    found, keys = without_kept_metadata(found, expected, report.kept_metadata)
    additions += [f"metadata {', '.join(keys)}"] if keys else []
    if additions:
        yield Finding("card", "same", f"people added: {', '.join(additions)}")
    if form == CARD_FORM:
        yield _compare_text(expected, found)
        return
    if form > CARD_FORM:
        yield Finding("card", "unknown", f"{CARD_FILE} has the form {form} of a later version")
        return
    if form < OLDEST_FORM.get(report.version, CARD_FORM):
        yield Finding("card", "differs", f"{CARD_FILE} claims form {form}, which is older than its report")
        return
    differences = data_differences(card_data(expected, report), card_data(found, report))
    yield from (Finding("card", "differs", f"{CARD_FILE}: {difference}") for difference in differences)
    if not differences:
        yield Finding("card", "same", "agrees with the report in all data; its wording is that of another version")


def _compare_text(expected: str, found: str) -> Finding:
    if expected.rstrip() == found.rstrip():
        return Finding("card", "same", "agrees with the report")
    theirs, ours = front_matter(found), front_matter(expected)
    keys = sorted(str(key) for key in {*theirs, *ours} if theirs.get(key) != ours.get(key))
    if keys:
        detail = f"{CARD_FILE} does not agree with the report: its metadata differ in {', '.join(keys)}"
        return Finding("card", "differs", detail)
    pairs = zip([*expected.splitlines(), None], [*found.splitlines(), None], strict=False)
    line = next((number for number, (one, other) in enumerate(pairs, start=1) if one != other), 0)
    return Finding("card", "differs", f"{CARD_FILE} does not agree with the report; first difference in line {line}")


def _expected_card(release: PublishedStep, report: RunReport, stream: Stream, model_license: License, form: int) -> str:
    folder = download_published_step(release)
    with open_checkpoint(folder, release.repo) as published:
        files = ModelFiles.of(published, stream, folder, names=set(release.files), model_license=model_license)
    files = replace(files, notice=NOTICE_FILE in report.all_files)
    if form < 2:  # form 1 knows no other library
        files = replace(files, library="transformers", modules=())
    return card_for(report, stream, release.metadata_files[RECIPE_FILE], files, form=min(form, CARD_FORM))


def _expected_license(release: PublishedStep, report: RunReport, stream: Stream, form: int) -> License:
    """Return the license that the recipe sets, or that of the base model at its commit.

    A base model in a local folder may have another card by now, so that the published license counts.
    """
    publish, base = stream.recipe.publish, stream.base
    if form > LISTED_DATASETS:
        if base.is_local and not report.base_model.licenses and (publish is None or publish.license is None):
            return license_of(release.metadata_files[CARD_FILE])
        return license_of_step(report, stream)
    if publish is not None and publish.license:
        return License((publish.license,))
    if base.is_local:
        return _older_license(release.metadata_files[CARD_FILE])
    repo = base.reference.path
    files = {base.name_of(file): file for file in fetch.list_files(repo, base.commit, base.subfolder)}
    if CARD_FILE not in files:
        return License()
    content = fetch.read_file(repo, base.commit, files[CARD_FILE])
    return _older_license(content.decode("utf-8", errors="replace"))


def _older_license(card: str) -> License:
    """Return the license as versions with forms 1 and 2 read it: one text, as it is written."""
    named = front_matter(card).get("license")
    return License((named,)) if isinstance(named, str) else License()
