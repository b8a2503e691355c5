"""Verification of a published step: its metadata first, then the step recomputed and compared."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from hubmerge.support.progress import Progress
from hubmerge.verify.card import compare_card
from hubmerge.verify.comparison import compare_recomputed
from hubmerge.verify.finding import Finding, Verdict, title
from hubmerge.verify.metadata import check_digests, check_history, check_recipe_and_lock, check_weight_files
from hubmerge.verify.published import Published, read_published
from hubmerge.verify.recomputation import Recomputed, recompute_step
from hubmerge.verify.states import check_state_digests, check_state_values


def verify_step(repo: str, revision: str | None, work: Path, progress: Progress, *, recompute: bool = True) -> Verdict:
    """Verify a published step.

    Each finding is passed to `progress` as soon as it is known.

    Args:
        repo: the repo, owner/name.
        revision: a tag such as step-03, a branch or a commit; None for main.
        work: a folder of its own, emptied before and after.
        progress: the receiver of notes, events and stages.
        recompute: False to check the metadata only.

    Raises:
        HubError: the repo or the revision is missing, or hubmerge did not publish it.
    """
    published = read_published(repo, revision)
    progress.note(title(repo, published.step, published.files.commit))
    findings: list[Finding] = []
    recomputed = False
    for finding in check_metadata(published):
        findings.append(_announced(finding, progress))
    broken_chain = any(finding.subject == "chain" and finding.verdict == "differs" for finding in findings)
    if recompute and published.stream is not None and not broken_chain:
        with _empty_folder(work):
            made = recompute_step(published, published.stream, work, progress)
            recomputed = isinstance(made, Recomputed)
            for finding in _compare(published, made, work):
                findings.append(_announced(finding, progress))
    return Verdict(repo, published.step, published.files.commit, tuple(findings), recomputed)


def check_metadata(published: Published) -> Iterator[Finding]:
    """Check digests, recipe, lock, card, earlier reports and states; nothing is recomputed."""
    yield check_digests(published)
    yield from check_recipe_and_lock(published)
    yield check_weight_files(published)
    if published.stream is None:
        yield Finding("card", "unknown", "the card cannot be checked: recipe and lock do not fit together")
    else:
        yield from compare_card(published.files, published.report, published.stream)
    yield from check_history(published)
    yield from check_state_digests(published)


def _compare(published: Published, made: Recomputed | Finding, work: Path) -> Iterator[Finding]:
    if isinstance(made, Finding):
        yield made
    else:
        yield from check_state_values(published, work / "published")
        yield from compare_recomputed(published, made)


def _announced(finding: Finding, progress: Progress) -> Finding:
    progress.event("finding", asdict(finding))
    progress.note(f"  {finding}")
    return finding


@contextmanager
def _empty_folder(folder: Path) -> Iterator[None]:
    """Empty a folder, and remove it at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
