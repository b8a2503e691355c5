"""Published steps: verify one, roll back to one, find what changed on the Hub since then."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hubmerge.api.progress import ProgressOption, open_progress
from hubmerge.api.recipes import RecipeLike, load
from hubmerge.support.paths import user_cache_folder
from hubmerge.support.text import counted

if TYPE_CHECKING:
    from hubmerge.automation.outdated import Changes
    from hubmerge.verify.finding import Finding


@dataclass(frozen=True)
class Verdict:
    """Result of a verification; `str()` of it is one line."""

    repo: str
    """The verified repo."""
    step: int
    """Number of the verified step."""
    commit: str
    """Commit of the step."""
    findings: tuple[Finding, ...]
    """All checks with their results."""
    recomputed: bool
    """True if the step was merged again, False if only digests, chain and lock were checked."""

    @property
    def differences(self) -> tuple[Finding, ...]:
        """Checks that found a difference."""
        return tuple(one for one in self.findings if one.verdict == "differs")

    @property
    def unknown(self) -> tuple[Finding, ...]:
        """Checks that were not possible."""
        return tuple(one for one in self.findings if one.verdict == "unknown")

    @property
    def verified(self) -> bool:
        """True if no check found a difference."""
        return not self.differences

    def __str__(self) -> str:
        partly = " as far as possible" if self.unknown else ""
        verdict = f"verified{partly}" if self.verified else "NOT verified"
        how = "re-merged and compared" if self.recomputed else "by digests, chain and lock"
        differences = counted(len(self.differences), "difference")
        return f"{verdict} ({how}): {differences}, {counted(len(self.unknown), 'check')} not possible"


def verify(
    published: str,
    *,
    quick: bool = False,
    work_dir: str | os.PathLike[str] | None = None,
    on_start: Callable[[str, int, str], None] | None = None,
    on_finding: Callable[[Finding], None] | None = None,
    progress: ProgressOption = "auto",
) -> Verdict:
    """Check a published step: digests, chain, lock and card, then merge the step again and compare everything.

    Args:
        published: the repo, with the step as revision unless it is the newest: `owner/name@step-03`.
        quick: check digests, chain, lock and card only; nothing is merged.
        work_dir: folder for states and caches; in the user's cache folder by default.
        on_start: called with repo, step and commit before the first check.
        on_finding: called with the result of each check as soon as it is known.
        progress: see `hubmerge.run`.

    Returns:
        The verdict: `.verified`, `.differences`, `.unknown` and all `.findings`.

    Raises:
        HubError: the repo cannot be read, or holds no published step.
    """
    from hubmerge.verify.verifier import Verifier
    from merge_recipes import ModelReference

    reference = ModelReference.parse(published)
    work = user_cache_folder("runs") if work_dir is None else Path(work_dir)
    verifier = Verifier(reference.path, reference.revision, work / "verify", open_progress(progress))
    commit = verifier.release.commit
    if on_start is not None:
        on_start(reference.path, verifier.step, commit)
    findings = []
    for finding in verifier.quick() if quick else verifier.full():
        if on_finding is not None:
            on_finding(finding)
        findings.append(finding)
    return Verdict(reference.path, verifier.step, commit, tuple(findings), verifier.recomputed)


def rollback(repo: str, step: int) -> str:
    """Restore the files of an earlier step on the main branch of a repo, and delete the tags of later steps.

    The commits of later steps stay in the history of the repo.

    Args:
        repo: the repo that a recipe publishes to.
        step: number of the step, from 1.

    Returns:
        The commit that restores the step.

    Raises:
        HubError: the repo has no tag for the step, or the token may not write.
    """
    from hubmerge.hub.published import roll_back

    return roll_back(repo, step)


def outdated(recipe: RecipeLike, *, progress: ProgressOption = "auto") -> Changes:
    """Find what changed on the Hub since the steps of a recipe were published, or since its lock was written.

    Args:
        recipe: the path of a YAML file, a dict with the keys of a recipe, or a loaded recipe.
        progress: see `hubmerge.run`.

    Returns:
        The changes, empty if there is none; `str()` of them is a table.

    Raises:
        RecipeError: the recipe has problems.
        HubError: the Hub does not answer, or the target repo holds another stream.
    """
    from hubmerge.automation.outdated import find_changes

    reports = open_progress(progress)
    loaded = load(recipe, progress=reports)
    with reports.stage("check the Hub"):
        return find_changes(loaded)
