"""Files of a target repo that are as hubmerge published them. Only these may a run replace or delete."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hubmerge.hub.checked_files import list_entries
from hubmerge.hub.publish import Target
from hubmerge.hub.published import download_file, entry_digests, has_content
from hubmerge.provenance.bundle import signs_report
from hubmerge.report.report import RunReport
from hubmerge.support.hashing import file_digest
from hubmerge.support.names import LOCK_FILE, PICTURE_FILE, RECIPE_FILE, REPORT_FILE, SIGNATURE_FILE, step_tag


def own_files(target: Target) -> frozenset[str]:
    """Return the files at the head of a target that its newest published step has, with the same content.

    A report with a list of all files decides. For a report of version 1 it is the commit of the step's tag, and without
    the tag the digests of the weights and the names of the metadata files. A signature belongs to the step whose report
    it covers, whoever made it: it is not valid for the next step.
    """
    if target.report is None or target.head is None:
        return frozenset()
    return _published(target, target.report) | signature_of(target.repo, target.head, target.files)


def signature_of(repo: str, commit: str, files: Collection[str]) -> frozenset[str]:
    """Return the name of the signature among the files of a commit if it covers the report there, else nothing."""
    if SIGNATURE_FILE not in files or REPORT_FILE not in files:
        return frozenset()
    report, signature = (download_file(repo, commit, name) for name in (REPORT_FILE, SIGNATURE_FILE))
    return frozenset({SIGNATURE_FILE} if signs_report(signature.read_bytes(), file_digest(report)) else ())


def _published(target: Target, content: dict[str, Any]) -> frozenset[str]:
    report = RunReport.from_dict(content)
    if report.all_files:
        same = {path for path, file in report.all_files.items() if _has_content(target, path, file.sha256)}
        return frozenset({REPORT_FILE, *same, *(report.history_files.keys() & target.files)})
    tagged = target.tags.get(step_tag(report.steps[-1].step)) if report.steps else None
    if tagged is not None:
        earlier = entry_digests(list_entries(target.repo, tagged))
        return frozenset(path for path, digest in target.digests.items() if earlier.get(path) == digest)
    weights = report.steps[-1].files if report.steps else {}
    same = {path for path, digest in weights.items() if target.digests.get(path) == digest}
    return frozenset(same | ({REPORT_FILE, RECIPE_FILE, LOCK_FILE, PICTURE_FILE} & target.files))


def _has_content(target: Target, path: str, sha256: str) -> bool:
    digest = target.digests.get(path)
    if digest is None or target.head is None:
        return False
    return has_content(target.repo, target.head, path, digest, sha256)
