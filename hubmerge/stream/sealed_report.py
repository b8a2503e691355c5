"""Report of a target repo, checked before a run renews its seal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubmerge.errors import HubmergeError, TargetError
from hubmerge.hub.publish import RESTORE_REPORT, Target
from hubmerge.report.report import RunReport
from hubmerge.support.names import REPORT_FILE, step_tag


def sealed_report(target: Target, values: Mapping[str, Any]) -> RunReport:
    """Return the report of a target after checking its digests and its seal, which a run would renew.

    Raises:
        TargetError: It is not a report, or it was changed after it was written.
    """
    place = {"repo": target.repo, "commit": target.head, "file": REPORT_FILE}
    try:
        report = RunReport.from_dict(values)
    except HubmergeError as error:
        raise TargetError(f"target repo {target.repo}: {error.message}", hint=RESTORE_REPORT, **place) from error
    broken = report.broken_digest()
    if broken is None and not report.has_broken_seal:
        return report
    what = "seal" if broken is None else f"digest of {step_tag(broken)}"
    raise TargetError(
        f"target repo {target.repo}: {REPORT_FILE} was changed after it was published: its {what} does not match its "
        "content",
        hint=f"run `hubmerge verify {target.repo}`, then {RESTORE_REPORT}",
        **place,
    )
