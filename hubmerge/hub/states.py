"""States on the Hub: the accumulated delta a stream is extended and verified from, on a branch of the target repo.

A branch of its own, so that nobody who downloads the model pays for the state, and so that old states can be forgotten
together with their history. Below it lies one folder for each state, named after the state's digest: a step's report
names that digest, so a state that lost the race to be published is never mistaken for the one that won.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

from hubmerge.hub.client import api, call, create_commit, status_of
from hubmerge.hub.fetch import list_files
from hubmerge.support.names import MANIFEST_FILE, STATE_BRANCH

DIGEST_CHARACTERS = 32


def publish_state(repo: str, folder: Path, digest: str) -> None:
    """Put a state on the branch, unless it is there; other states stay as they are.

    Raises:
        HubError: the Hub refuses or does not answer.
    """
    what = f"the state branch of {repo}"
    name = _folder_name(digest)
    if name in _states_there(repo):
        return
    first = call(f"history of {repo}", lambda: list(api().list_repo_commits(repo))[-1].commit_id)
    call(what, lambda: api().create_branch(repo, branch=STATE_BRANCH, revision=first, exist_ok=True))
    operations = [
        CommitOperationAdd(f"{name}/{path.name}", path) for path in sorted(folder.iterdir()) if path.is_file()
    ]
    call(
        f"uploading the state to {what}",
        lambda: create_commit(repo, operations, f"state {name}", revision=STATE_BRANCH),
    )


def fetch_state(repo: str, digest: str, folder: Path) -> bool:
    """Download a state into `folder`, whole or not at all; False if the branch does not hold it."""
    name = _folder_name(digest)
    if name not in _states_there(repo):
        return False
    what = f"the state {name} of {repo}"
    commit = call(what, lambda: api().model_info(repo, revision=STATE_BRANCH).sha)
    if commit is None:
        return False
    partial = folder.with_name(f".{folder.name}.fetched")
    shutil.rmtree(partial, ignore_errors=True)
    for file in list_files(repo, commit):
        if PurePosixPath(file.path).parent == PurePosixPath(name):
            call(
                f"{file.path} of {what}",
                functools.partial(api().hf_hub_download, repo, file.path, revision=commit, local_dir=partial),
            )
    if not (partial / name).is_dir():
        return False
    if folder.exists():
        shutil.rmtree(folder)
    (partial / name).rename(folder)
    shutil.rmtree(partial)
    return True


def manifest_digest(repo: str, digest: str) -> str | None:
    """Return the digest of the manifest that lies where the state `digest` should, None if nothing does."""
    name = _folder_name(digest)
    if name not in _states_there(repo):
        return None
    path = call(
        f"the state {name} of {repo}",
        lambda: api().hf_hub_download(repo, f"{name}/{MANIFEST_FILE}", revision=STATE_BRANCH),
    )
    return f"sha256:{hashlib.sha256(Path(path).read_bytes()).hexdigest()}"


def prune_states(repo: str, digests: Collection[str]) -> None:
    """Forget every state but the named ones, and the branch's history with them.

    When somebody else commits to the branch at the same time, the cleaning is left to the next step.
    """
    kept = {_folder_name(digest) for digest in digests}
    outdated = sorted(_states_there(repo) - kept)
    if not outdated:
        return
    what = f"the state branch of {repo}"
    head = call(what, lambda: api().model_info(repo, revision=STATE_BRANCH).sha)
    operations = [CommitOperationDelete(f"{name}/", is_folder=True) for name in outdated]

    def forget() -> bool:
        try:
            create_commit(repo, operations, "forget older states", revision=STATE_BRANCH, parent_commit=head)
        except HfHubHTTPError as error:
            if status_of(error) not in {404, 412}:
                raise
            # The answer to the same call a moment ago may have been lost: what counts is what is there now.
            return not _names(repo) & set(outdated)
        return True

    if call(f"cleaning {what}", forget):
        call(f"cleaning {what}", lambda: api().super_squash_history(repo, branch=STATE_BRANCH))


def _states_there(repo: str) -> set[str]:
    return call(f"the state branch of {repo}", lambda: _names(repo))


def _names(repo: str) -> set[str]:
    try:
        entries = list(api().list_repo_tree(repo, revision=STATE_BRANCH))
    except RevisionNotFoundError:
        return set()
    return {entry.path for entry in entries if not hasattr(entry, "size")}


def _folder_name(digest: str) -> str:
    return digest.removeprefix("sha256:")[:DIGEST_CHARACTERS]
