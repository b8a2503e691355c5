"""Published states: the accumulated deltas that a stream is extended and verified from.

States are on a branch of their own in the target repo. A download of the model does not include them, and old states
can be deleted together with their history. The branch holds one folder per state, named after the digest of the
state. A step's report contains this digest, so it identifies the right state after concurrent runs.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

from hubmerge.errors import HubError
from hubmerge.hub.cached_files import is_offline
from hubmerge.hub.checked_files import RemoteFile, StoppableBar, difference, download_checked
from hubmerge.hub.client import api
from hubmerge.hub.failures import status_of
from hubmerge.hub.fetch import list_files
from hubmerge.hub.retry import call, create_commit
from hubmerge.support.files import replace_folder
from hubmerge.support.names import MANIFEST_FILE, STATE_BRANCH

DIGEST_CHARACTERS = 32
"""Hex digits of a digest in a folder's name."""


def publish_state(repo: str, folder: Path, digest: str, *, replace: bool = False) -> None:
    """Commit a state to the state branch, unless it is there. Other states are unchanged.

    Args:
        repo: the target repo.
        folder: the folder of the state.
        digest: `sha256:` and the digest of the state's manifest.
        replace: write the files again although a state of this digest is there, because it is damaged.

    Raises:
        HubError: the Hub refuses or does not respond.
    """
    branch = f"the state branch of {repo}"
    name = _folder_name(digest)
    published = call(branch, lambda: _find_states(repo), repo=repo)
    if not replace and name in (published or ()):
        return
    if published is None:
        first = call(f"history of {repo}", lambda: list(api().list_repo_commits(repo))[-1].commit_id, repo=repo)
        call(
            branch,
            lambda: api().create_branch(repo, branch=STATE_BRANCH, revision=first, exist_ok=True),
            repo=repo,
            publishes=True,
        )
    operations = [
        CommitOperationAdd(f"{name}/{path.name}", path) for path in sorted(folder.iterdir()) if path.is_file()
    ]
    call(
        f"publishing the state to {branch}",
        lambda: create_commit(repo, operations, f"state {name}", revision=STATE_BRANCH),
        repo=repo,
    )


def is_published(repo: str, digest: str) -> bool:
    """Return True if the state branch has a state of this digest."""
    return _folder_name(digest) in _published_states(repo)


def fetch_state(repo: str, digest: str, folder: Path) -> bool:
    """Download a state into a folder, completely or not at all.

    Returns:
        False if the state is not published.

    Raises:
        HubError: the Hub refuses or does not respond.
    """
    name = _folder_name(digest)
    if name not in _published_states(repo):
        return False
    subject = f"the state {name} of {repo}"
    commit = call(subject, lambda: api().model_info(repo, revision=STATE_BRANCH).sha, repo=repo)
    if commit is None:
        return False
    partial = folder.with_name(f".{folder.name}.fetched")
    shutil.rmtree(partial, ignore_errors=True)
    for file in list_files(repo, commit, name):
        if PurePosixPath(file.path).parent == PurePosixPath(name):
            _fetch_file(repo, commit, file, partial)
    if not (partial / name).is_dir():
        return False
    replace_folder(partial / name, folder)
    shutil.rmtree(partial)
    return True


def manifest_digest(repo: str, digest: str) -> str | None:
    """Return the digest of the published manifest of a state, or None if the state is not published.

    The result differs from `digest` if the manifest was changed on the Hub.
    """
    name = _folder_name(digest)
    if name not in _published_states(repo):
        return None
    commit = call(f"the state {name} of {repo}", lambda: api().model_info(repo, revision=STATE_BRANCH).sha, repo=repo)
    file = next((one for one in list_files(repo, commit or "", name) if one.path == f"{name}/{MANIFEST_FILE}"), None)
    content = b"" if commit is None or file is None else download_checked(repo, commit, file).read_bytes()
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _fetch_file(repo: str, commit: str, file: RemoteFile, folder: Path) -> None:
    """Download one file of the state branch into a folder and compare it with the listing of the Hub.

    Raises:
        HubError: the Hub refuses.
        CheckpointError: the Hub sends other content than it lists.
    """
    subject = f"{file.path} of {repo} at {commit}"
    download = functools.partial(
        api().hf_hub_download, repo, file.path, revision=commit, local_dir=folder, tqdm_class=StoppableBar
    )
    problem = difference(Path(call(subject, download, repo=repo, commit=commit, file=file.path)), file)
    if problem is not None:
        raise HubError(
            f"{subject}: {problem}",
            hint="run again to download the file again",
            repo=repo,
            commit=commit,
            file=file.path,
        )


def prune_states(repo: str, digests: Collection[str]) -> None:
    """Delete all published states except the given ones, and the history of the state branch.

    If another writer commits to the branch at the same time, nothing is deleted; the next step tries again.
    """
    kept = {_folder_name(digest) for digest in digests}
    outdated = sorted(_published_states(repo) - kept)
    if not outdated:
        return
    branch = f"the state branch of {repo}"
    head = call(branch, lambda: api().model_info(repo, revision=STATE_BRANCH).sha, repo=repo)
    operations = [CommitOperationDelete(f"{name}/", is_folder=True) for name in outdated]

    def delete() -> bool:
        try:
            create_commit(repo, operations, "forget older states", revision=STATE_BRANCH, parent_commit=head)
        except HfHubHTTPError as error:
            if status_of(error) not in {404, 412}:
                raise
            # The response to an earlier attempt may have been lost, so the content of the branch decides.
            return not _state_folders(repo) & set(outdated)
        return True

    subject = f"deleting old states on {branch}"
    if call(subject, delete, repo=repo):
        call(subject, lambda: api().super_squash_history(repo, branch=STATE_BRANCH), repo=repo, publishes=True)


def _published_states(repo: str) -> set[str]:
    return call(f"the state branch of {repo}", lambda: _state_folders(repo), repo=repo)


def _state_folders(repo: str) -> set[str]:
    return _find_states(repo) or set()


def _find_states(repo: str) -> set[str] | None:
    """Return the folders of the published states, None without a state branch or offline."""
    if is_offline():
        return None
    try:
        entries = list(api().list_repo_tree(repo, revision=STATE_BRANCH))
    except RevisionNotFoundError:
        return None
    return {entry.path for entry in entries if not hasattr(entry, "size")}


def _folder_name(digest: str) -> str:
    return digest.removeprefix("sha256:")[:DIGEST_CHARACTERS]
