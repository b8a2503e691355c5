"""Checks of the tags of a repo, and of the reports under earlier tags."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from hubmerge.errors import HubError, HubmergeError, MachineError
from hubmerge.hub.checked_files import download_checked, find_file
from hubmerge.hub.failures import is_outage
from hubmerge.hub.published import published_tags, read_published_step
from hubmerge.report.report import RunReport
from hubmerge.support.names import REPORT_FILE, step_tag
from hubmerge.support.text import counted
from hubmerge.verify.finding import Finding
from hubmerge.verify.published import DOWNLOADS, Published

_LIKE_A_TAG = re.compile(r"step-0*([1-9][0-9]{0,8})")


def check_history(published: Published, *, rescored: bool) -> Iterator[Finding]:
    """Check that tags name their steps, and that the report of every earlier tag is the beginning of this report.

    Args:
        published: the published step.
        rescored: whether earlier merged models without a tag are scored again afterwards.
    """
    tags = step_tags(published)
    if published.files.is_alone:
        yield from _unchecked_scores(published, tags, rescored=rescored)
        return
    yield from _check_own_tag(published, tags)
    earlier = {step: commit for step, commit in tags.items() if step < published.step}
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        found = list(pool.map(partial(_check_earlier, published), earlier, earlier.values()))
    different = [finding for findings in found for finding in findings]
    yield from different
    if different:
        return
    unchecked = list(_unchecked_scores(published, tags, rescored=rescored))
    yield from unchecked
    if unchecked:
        return
    agrees = "agrees" if len(earlier) == 1 else "agree"
    yield Finding("history", "same", f"{counted(len(earlier), 'earlier tag')} {agrees} with this report")


def _check_own_tag(published: Published, tags: dict[int, str]) -> Iterator[Finding]:
    """Check that the revision, if it looks like the tag of a step, and the tag of the step name this step."""
    revision, step = published.files.revision, published.step
    named = _LIKE_A_TAG.fullmatch(revision)
    if named is not None and int(named[1]) != step:
        yield Finding("tag", "differs", f"{revision} names a commit of step {step}")
        return
    commit = tags.get(step)
    if commit is None or commit == published.files.commit:
        return
    tag = step_tag(step)
    try:
        text = read_published_step(published.repo, commit).metadata_files[REPORT_FILE]
    except MachineError:
        raise
    except HubmergeError as error:
        yield Finding("tag", "unknown" if is_outage(error) else "differs", f"{tag}: {error.message}")
        return
    if text != published.files.metadata_files[REPORT_FILE]:
        yield Finding("tag", "differs", f"{tag} names another commit, whose report is not this one")


def _check_earlier(published: Published, step: int, commit: str) -> list[Finding]:
    """Return what differs between the report under an earlier tag and this one; nothing else there is read."""
    report, tag = published.report, step_tag(step)
    try:
        earlier = RunReport.from_json(_report_at(published.repo, commit))
    except MachineError:
        raise
    except HubmergeError as error:
        return [Finding("history", "unknown" if is_outage(error) else "differs", f"{tag}: {error.message}")]
    if len(earlier.steps) != step:
        problem = f"{tag} names a commit of step {len(earlier.steps)}"
    elif [one.digest for one in earlier.steps] != [one.digest for one in report.steps[:step]]:
        problem = f"the report at {tag} is not the beginning of this one"
    elif earlier.broken_digest() is not None or earlier.has_broken_seal:
        problem = f"the report at {tag} was changed after it was published"
    elif (score := _different_score(earlier, report)) is not None:
        problem = f"the report at {tag} has another value for {score}"
    else:
        return []
    return [Finding("history", "differs", problem)]


def _report_at(repo: str, commit: str) -> str:
    """Return the text of the report at a commit.

    Raises:
        HubError: there is none, or the Hub does not respond.
    """
    file = find_file(repo, commit, REPORT_FILE)
    if file is None:
        raise HubError(f"there is no {REPORT_FILE}", repo=repo, commit=commit, file=REPORT_FILE)
    return download_checked(repo, commit, file).read_bytes().decode("utf-8", errors="replace")


def step_tags(published: Published) -> dict[int, str]:
    """Return the commit of each tagged step; none if the tags cannot be read."""
    return {} if published.files.is_alone else published_tags(published.repo)


def untagged_scores(published: Published, tags: Collection[int]) -> list[int]:
    """Return the earlier steps that have scores and no tag.

    With `publish: {steps: last}` the steps between were never published, so that only scoring them again proves them.
    """
    return [step.step for step in published.report.steps[:-1] if step.scores and step.step not in tags]


def _unchecked_scores(published: Published, tags: Collection[int], *, rescored: bool) -> Iterator[Finding]:
    missing = [] if rescored else untagged_scores(published, tags)
    if missing:
        steps = ", ".join(map(str, missing))
        why = "tags cannot be read" if published.files.is_alone else f"there is no tag {step_tag(missing[0])}"
        yield Finding("history", "unknown", f"the scores of step {steps} cannot be checked: {why}")


def _different_score(earlier: RunReport, report: RunReport) -> str | None:
    """Return the first score outside of the steps that both reports have and that differs."""
    for kind in ("base_scores", "own_scores"):
        before, now = getattr(earlier, kind), getattr(report, kind)
        for task in sorted(set(before) & set(now)):
            if before[task] != now[task]:
                return f"{kind}.{task}"
    return None
