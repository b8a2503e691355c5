"""Commit that adds the signature to the newest published step."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError

from hubmerge.errors import TargetMovedError
from hubmerge.hub.checked_files import list_entries
from hubmerge.hub.failures import status_of
from hubmerge.hub.fetch import read_checked, resolve_commit
from hubmerge.hub.publish import delete_tag, tag_step
from hubmerge.hub.published import entry_digests, published_tags
from hubmerge.hub.retry import call, create_commit
from hubmerge.support.names import SIGNATURE_FILE, step_tag


def publish_signature(repo: str, signature: Path, *, step: int, parent: str) -> tuple[str, bool]:
    """Add the signature to the newest commit of a repo; return the new commit, and True if the step's tag names it.

    The tag moves unless the commit that it names has other files than the signed one.

    Args:
        repo: the target repo.
        signature: the file of the signature.
        step: the signed step, counted from 1.
        parent: the signed commit, which is expected to be the newest one.

    Raises:
        TargetMovedError: another writer committed to the repo in the meantime.
        HubError: the Hub refuses or does not respond.
    """
    tag = step_tag(step)
    subject = f"publishing the signature of {tag} to {repo}"
    operations = [CommitOperationAdd(SIGNATURE_FILE, signature)]
    commit = call(subject, lambda: _commit(repo, operations, f"Sign {tag}", parent), repo=repo)
    if commit == parent or read_checked(repo, commit, SIGNATURE_FILE) != signature.read_bytes():
        raise TargetMovedError(
            f"target repo {repo} changed while {tag} was signed: expected the newest commit {parent}, found {commit}",
            hint=f"verify what was published, then sign again: hubmerge verify {repo}",
            repo=repo,
            commit=commit,
        )
    tagged = published_tags(repo).get(step)
    if tagged is not None and _unsigned_files(repo, tagged) != _unsigned_files(repo, parent):
        return commit, False
    if tagged is not None:
        delete_tag(repo, tag)
    tag_step(repo, step, commit)
    return commit, True


def _unsigned_files(repo: str, commit: str) -> dict[str, str]:
    """Return the digest of each file of a commit except the signature."""
    digests = entry_digests(list_entries(repo, commit))
    return {name: digest for name, digest in digests.items() if name != SIGNATURE_FILE}


def _commit(repo: str, operations: list[CommitOperationAdd], title: str, parent: str) -> str:
    """Create the commit; if the repo has a newer one than `parent`, return that one instead."""
    try:
        return create_commit(repo, operations, title, parent_commit=parent)
    except HfHubHTTPError as error:
        if status_of(error) != 412:
            raise
        return resolve_commit("model", repo, "main")
