"""Checks of the tags of a repo, and of the reports under earlier tags."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hubmerge.errors import HubmergeError
from hubmerge.hub.published import published_tags, read_published_step
from hubmerge.report.report import RunReport
from hubmerge.support.names import REPORT_FILE, step_tag
from hubmerge.support.text import counted
from hubmerge.verify.finding import Finding
from hubmerge.verify.published import Published

_LIKE_A_TAG = re.compile(r"step-0*([1-9][0-9]{0,8})")


def check_history(published: Published) -> Iterator[Finding]:
    """Check that tags name their steps, and that the report of every earlier tag is the beginning of this report."""
    tags = published_tags(published.repo)
    yield from _check_own_tag(published, tags)
    earlier = [step for step in tags if step < published.step]
    different = False
    for step in earlier:
        for finding in _check_earlier(published, step):
            different = True
            yield finding
    if different:
        return
    missing = _untagged(published, earlier)
    if missing:
        steps = ", ".join(map(str, missing))
        detail = f"the scores of step {steps} cannot be checked: there is no tag {step_tag(missing[0])}"
        yield Finding("history", "unknown", detail)
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


def _untagged(published: Published, tagged: list[int]) -> list[int]:
    """Return the earlier steps that have scores, were published, and have no tag.

    With `publish: {steps: last}` the steps between were never published: no tag is missing, and nothing but this
    report says anything about them.
    """
    return [step.step for step in published.report.steps[:-1] if step.scores and step.step not in tagged]


def _different_score(earlier: RunReport, report: RunReport) -> str | None:
    """Return the first score outside of the steps that both reports have and that differs."""
    for kind in ("base_scores", "own_scores"):
        before, now = getattr(earlier, kind), getattr(report, kind)
        for task in sorted(set(before) & set(now)):
            if before[task] != now[task]:
                return f"{kind}.{task}"
    return None
