"""Verification of a published step: its metadata first, then all steps recomputed and compared."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from hubmerge.errors import HubmergeError, MachineError, UsageError
from hubmerge.provenance.signing import TrustedSigner
from hubmerge.support.progress import Progress
from hubmerge.verify.card import compare_card
from hubmerge.verify.comparison import compare_recomputed
from hubmerge.verify.files import check_files
from hubmerge.verify.finding import Finding, Verdict, title
from hubmerge.verify.history import check_history
from hubmerge.verify.licenses import check_licenses
from hubmerge.verify.metadata import check_digests, check_recipe_and_lock
from hubmerge.verify.page import check_page
from hubmerge.verify.provenance import check_bom, check_provenance
from hubmerge.verify.published import NO_STREAM, Published, UnreadableReport, read_published
from hubmerge.verify.recomputation import Recomputed, recompute_step
from hubmerge.verify.signature import check_signature
from hubmerge.verify.sources import check_published
from hubmerge.verify.state_branch import check_state_branch
from hubmerge.verify.states import check_state_digests, check_state_values

NOBODY = TrustedSigner()
"""No key and no identity is trusted: it is not checked who made a signature."""


def verify_step(
    repo: str | Path,
    revision: str | None,
    work: Path,
    progress: Progress,
    *,
    recompute: bool = True,
    from_parts: bool = False,
    trusted: TrustedSigner = NOBODY,
) -> Verdict:
    """Verify a published step.

    Each finding is passed to `progress` as soon as it is known.

    Args:
        repo: the repo, owner/name, or the folder of a step.
        revision: a tag such as step-03, a branch or a commit; None for main.
        work: a folder; each verification uses a new folder in it, and removes it at the end.
        progress: the receiver of notes, events and stages.
        recompute: False to check the metadata only.
        from_parts: True to add the states of the parts of a combined stream instead of merging their checkpoints.
        trusted: the key or the identity that the signature must be by.

    Raises:
        HubError: the repo or the revision is missing, or hubmerge did not publish it.
        UsageError: the stream was not combined, so that `from_parts` has no effect.
    """
    trusted.check()
    published = read_published(repo, revision)
    if isinstance(published, UnreadableReport):
        return _unreadable(str(repo), published, progress)
    if from_parts:
        _check_combined(str(repo), published)
    _announce(repo, published, progress)
    findings = [_announced(one, progress) for one in check_metadata(published, trusted, recompute=recompute)]
    broken_chain = any(finding.subject == "chain" and finding.verdict == "differs" for finding in findings)
    recomputed = False
    if recompute and published.stream is not None and not broken_chain:
        recomputed = _add_recomputed(findings, published, work, progress, from_parts=from_parts)
    return Verdict(str(repo), published.step, published.files.commit, tuple(findings), recomputed)


def _check_combined(repo: str, published: Published) -> None:
    if not published.report.combined_steps:
        message = f"{repo}: --from-parts has no effect: the stream was not combined from others"
        raise UsageError(message, hint="remove --from-parts", repo=repo)


def _announce(repo: str | Path, published: Published, progress: Progress) -> None:
    progress.note(title(str(repo), published.step, published.files.commit))
    if published.files.is_alone:
        progress.note("  not compared, because they are on the Hub: tags, earlier commits and published states")


def _unreadable(repo: str, published: UnreadableReport, progress: Progress) -> Verdict:
    progress.note(title(repo, 0, published.files.commit))
    finding = _announced(Finding("report", "differs", published.cause), progress)
    return Verdict(repo, 0, published.files.commit, (finding,), recomputed=False)


def check_metadata(published: Published, trusted: TrustedSigner, *, recompute: bool) -> Iterator[Finding]:
    """Check signature, statement, digests, recipe, lock, files, card, earlier reports and states; merge nothing.

    Args:
        published: the published step.
        trusted: the key or the identity that the signature must be by.
        recompute: whether the states are recomputed afterwards, so that one that is not published is no finding.
    """
    yield from check_signature(published, trusted)
    yield from check_provenance(published)
    yield check_digests(published)
    yield from check_recipe_and_lock(published)
    yield from check_files(published)
    yield from check_licenses(published)
    yield from check_page(published)
    if published.stream is None:
        yield Finding("card", "unknown", f"the card cannot be checked: {NO_STREAM}")
    else:
        try:
            yield from compare_card(published.files, published.report, published.stream)
        except MachineError:
            raise
        except HubmergeError as error:
            yield Finding("card", "differs", f"the card cannot be compared: {error.message}")
        yield from check_bom(published)
    yield from check_history(published, rescored=recompute and published.stream is not None)
    yield from check_state_digests(published, missing=not recompute)
    yield from check_state_branch(published)


def _add_recomputed(
    findings: list[Finding], published: Published, work: Path, progress: Progress, *, from_parts: bool
) -> bool:
    """Merge the steps again and add what is found; return True if the last one was merged."""
    recomputed = False
    with _own_folder(work) as folder:
        for item in _recompute(published, folder, progress, from_parts=from_parts):
            if isinstance(item, Recomputed):
                recomputed = True
            else:
                findings.append(_announced(item, progress))
    return recomputed


def _recompute(
    published: Published, folder: Path, progress: Progress, *, from_parts: bool
) -> Iterator[Finding | Recomputed]:
    stream = published.stream
    if stream is None:
        return
    made = yield from recompute_step(published, stream, folder, progress, from_parts=from_parts)
    yield from check_state_values(published, folder / "check")
    if made is not None:
        yield made
        if published.files.folder is None:
            check_published(published.repo, published.files.commit, progress)
        yield from compare_recomputed(published, made)


def _announced(finding: Finding, progress: Progress) -> Finding:
    progress.event("finding", asdict(finding))
    progress.note(f"  {finding}")
    return finding


@contextmanager
def _own_folder(parent: Path) -> Iterator[Path]:
    """Make a folder that no other process uses, and remove it at the end.

    Folders of processes that were killed are removed first: their locks are free.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for lock_file in parent.glob("*.lock"):
        _remove_unlocked(lock_file)
    folder = parent / uuid.uuid4().hex
    lock = FileLock(folder.with_suffix(".lock"), thread_local=False)
    try:
        with lock:
            folder.mkdir()
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".lock").unlink(missing_ok=True)


def _remove_unlocked(lock_file: Path) -> None:
    try:
        with FileLock(lock_file, blocking=False, thread_local=False):
            shutil.rmtree(lock_file.with_suffix(""), ignore_errors=True)
            lock_file.unlink(missing_ok=True)
    except (Timeout, OSError):
        return
