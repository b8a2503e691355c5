"""Checks of the tags of a repo, and of the reports under earlier tags."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from hubmerge.errors import HubmergeError
from hubmerge.hub.published import published_tags, read_published_step
from hubmerge.report.report import RunReport
from hubmerge.support.names import REPORT_FILE, step_tag
from hubmerge.support.text import counted
from hubmerge.verify.finding import Finding
from hubmerge.verify.published import Published

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
    earlier = [step for step in tags if step < published.step]
    different = False
    for step in earlier:
        for finding in _check_earlier(published, step):
            different = True
            yield finding
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
    except HubmergeError as error:
        yield Finding("tag", "differs", f"{tag}: {error.message}")
        return
    if text != published.files.metadata_files[REPORT_FILE]:
        yield Finding("tag", "differs", f"{tag} names another commit, whose report is not this one")


def _check_earlier(published: Published, step: int) -> Iterator[Finding]:
    report, tag = published.report, step_tag(step)
    try:
        earlier = RunReport.from_json(read_published_step(published.repo, tag).metadata_files[REPORT_FILE])
    except HubmergeError as error:
        yield Finding("history", "differs", f"{tag}: {error.message}")
        return
    if len(earlier.steps) != step:
        yield Finding("history", "differs", f"{tag} names a commit of step {len(earlier.steps)}")
    elif [one.digest for one in earlier.steps] != [one.digest for one in report.steps[:step]]:
        yield Finding("history", "differs", f"the report at {tag} is not the beginning of this one")
    elif earlier.broken_digest() is not None or earlier.has_broken_seal:
        yield Finding("history", "differs", f"the report at {tag} was changed after it was published")
    elif (score := _different_score(earlier, report)) is not None:
        yield Finding("history", "differs", f"the report at {tag} has another value for {score}")


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
