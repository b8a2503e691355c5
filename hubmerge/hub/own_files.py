"""Files of a target repo that are as hubmerge published them. Only these may a run replace or delete."""

from __future__ import annotations

from hubmerge.hub.checked_files import list_entries
from hubmerge.hub.publish import Target
from hubmerge.hub.published import entry_digests, has_content
from hubmerge.report.report import RunReport
from hubmerge.support.names import LOCK_FILE, PICTURE_FILE, RECIPE_FILE, REPORT_FILE, step_tag


def own_files(target: Target) -> frozenset[str]:
    """Return the files at the head of a target that its newest published step has, with the same content.

    A report with a list of all files decides. For a report of version 1 it is the commit of the step's tag, and without
    the tag the digests of the weights and the names of the metadata files.
    """
    if target.report is None:
        return frozenset()
    report = RunReport.from_dict(target.report)
    if report.all_files:
        same = {path for path, file in report.all_files.items() if _has_content(target, path, file.sha256)}
        return frozenset({REPORT_FILE, *same})
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
