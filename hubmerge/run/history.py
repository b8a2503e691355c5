"""Check of a published history against its tags and files, before a run extends it."""

from __future__ import annotations

from hashlib import sha256

from hubmerge.errors import HubmergeError, TargetError
from hubmerge.hub import fetch
from hubmerge.hub.publish import RESTORE_REPORT, Target
from hubmerge.report.report import RunReport
from hubmerge.support.names import REPORT_FILE, history_file, step_tag

CHECKED_TAGS = 2
"""Number of newest tags that are read. The digest of a step covers all steps before it."""


def check_history(target: Target | None, report: RunReport | None) -> None:
    """Check that the newest tags and the newest file in `history/` have the steps of the report.

    A run would seal them again. A tag that names no commit of its step says nothing, and is left to `hubmerge verify`.

    Args:
        target: The target repo, None if nothing is published.
        report: The report of the steps that are extended.

    Raises:
        TargetError: A step in the report is not the one that was tagged, or not the one in `history/`.
    """
    if target is None or report is None:
        return
    tagged = [step.step for step in report.steps if step_tag(step.step) in target.tags]
    for step in tagged[-CHECKED_TAGS:]:
        commit = target.tags[step_tag(step)]
        earlier = None if commit == target.head else _report_at(target.repo, commit, step)
        if earlier is not None and earlier.steps[-1].digest != report.steps[step - 1].digest:
            raise _changed(target, f"its {step_tag(step)} is not the one under the tag")
    newest = history_file(len(report.steps))
    content = fetch.read_checked(target.repo, target.head or "", newest) if newest in report.history_files else None
    if content is not None and f"sha256:{sha256(content).hexdigest()}" != report.steps[-1].digest:
        raise _changed(target, f"its newest step is not the one in {newest}")


def _changed(target: Target, cause: str) -> TargetError:
    return TargetError(
        f"target repo {target.repo}: {REPORT_FILE} was changed after it was published: {cause}",
        hint=f"run `hubmerge verify {target.repo}`, then {RESTORE_REPORT}",
        repo=target.repo,
        commit=target.head,
        file=REPORT_FILE,
    )


def _report_at(repo: str, commit: str, step: int) -> RunReport | None:
    """Return the report of a step at a commit, None if the commit has no valid report of this step."""
    content = fetch.read_checked(repo, commit, REPORT_FILE)
    if content is None:
        return None
    try:
        report = RunReport.from_json(content.decode("utf-8", errors="replace"))
    except HubmergeError:
        return None
    sealed = report.broken_digest() is None and not report.has_broken_seal
    return report if sealed and len(report.steps) == step else None
