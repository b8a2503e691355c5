"""Commits that published the steps of a target, found by the reports in them."""

from __future__ import annotations

from collections.abc import Sequence

from hubmerge.errors import HubmergeError
from hubmerge.hub.client import api
from hubmerge.hub.fetch import read_checked
from hubmerge.hub.retry import call
from hubmerge.report.report import RunReport
from hubmerge.support.names import REPORT_FILE


def step_commits(repo: str, steps: Sequence[int], digests: Sequence[str | None]) -> dict[int, str]:
    """Return the commit on main that published each step.

    It is the first commit whose report ends at the step, is as it was sealed, and has the digests of the newest report.
    Commits of people on top of it have the same report and do not count; neither do the titles of commits.

    Args:
        repo: the target repo.
        steps: the steps to find.
        digests: the digests of all published steps, in order.
    """
    commits = call(f"history of {repo}", lambda: list(api().list_repo_commits(repo)), repo=repo)
    found: dict[int, str] = {}
    for commit in commits:
        step = _last_step(repo, commit.commit_id, digests)
        if step in steps:
            found[step] = commit.commit_id
        if step and step < min(steps):
            break
    return found


def _last_step(repo: str, commit: str, digests: Sequence[str | None]) -> int:
    """Return the last step in the report of a commit; 0 if there is no report, or that of another stream."""
    content = read_checked(repo, commit, REPORT_FILE)
    try:
        report = RunReport.from_json((content or b"").decode("utf-8"))
    except (HubmergeError, UnicodeDecodeError):
        return 0
    same = [step.digest for step in report.steps] == list(digests[: len(report.steps)])
    intact = report.broken_digest() is None and not report.has_broken_seal
    return len(report.steps) if same and intact else 0
