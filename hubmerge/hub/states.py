"""Published states: the accumulated deltas that a stream is extended and verified from.

States are on a branch of their own in the target repo. A download of the model does not include them, and old states
can be deleted together with their history. The branch holds one folder per state, named after the digest of the
state. A step's report contains this digest, so it identifies the right state after concurrent runs. Other files on the
branch are neither read nor deleted.
"""

from __future__ import annotations

import functools
import hashlib
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

from hubmerge.errors import HubError
from hubmerge.hub.cached_files import is_offline
from hubmerge.hub.checked_files import RemoteFile, counted_bar, difference, download_checked, list_entries
from hubmerge.hub.client import api
from hubmerge.hub.failures import status_of
from hubmerge.hub.fetch import list_files, read_checked
from hubmerge.hub.retry import call, create_commit
from hubmerge.support.files import replace_folder
from hubmerge.support.names import ACCUMULATED_FILE, GIT_ATTRIBUTES, MANIFEST_FILE, STATE_BRANCH, STATE_FILES

DIGEST_CHARACTERS = 32
"""Hex digits of a digest in a folder's name."""

STATISTICS_FILE = "figures.json"
"""A file that earlier versions of hubmerge published in the folder of a state. Nothing reads it."""

_PUBLISHED_FILES = frozenset({*STATE_FILES, STATISTICS_FILE})
_FOLDER_NAME = re.compile(rf"[0-9a-f]{{{DIGEST_CHARACTERS}}}")


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
    published = call(branch, lambda: _is_complete(repo, name), repo=repo)
    if published and not replace:
        return
    if published is None:
        first = call(f"history of {repo}", lambda: list(api().list_repo_commits(repo))[-1].commit_id, repo=repo)
        call(
            branch,
            lambda: api().create_branch(repo, branch=STATE_BRANCH, revision=first, exist_ok=True),
            repo=repo,
            publishes=True,
        )
    present = [one for one in STATE_FILES if (folder / one).is_file()]
    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    operations += [CommitOperationAdd(f"{name}/{one}", folder / one) for one in present]
    inherited = [] if published is not None else _inherited_files(repo)
    operations += [CommitOperationDelete(path) for path in inherited]
    call(
        f"publishing the state to {branch}",
        lambda: create_commit(repo, operations, f"state {name}", revision=STATE_BRANCH),
        repo=repo,
    )


def _inherited_files(repo: str) -> list[str]:
    """Return the files of the target's first commit, with which a new state branch begins."""
    commit = call(f"the state branch of {repo}", lambda: api().model_info(repo, revision=STATE_BRANCH).sha, repo=repo)
    files = list_entries(repo, commit or "").keys() - {GIT_ATTRIBUTES}
    return sorted(path for path in files if state_folder_of(path) is None)


def is_published(repo: str, digest: str) -> bool:
    """Return True if the state branch has a state of this digest."""
    return bool(call(f"the state branch of {repo}", lambda: _is_complete(repo, _folder_name(digest)), repo=repo))


def state_folder_of(path: str) -> str | None:
    """Return the folder of the state that a file of the state branch belongs to, None for a file of other people."""
    folder, _, name = path.partition("/")
    return folder if _FOLDER_NAME.fullmatch(folder) and name in _PUBLISHED_FILES else None


def branch_files(repo: str) -> tuple[str, ...]:
    """Return the paths of all files of the state branch; none without a state branch or offline."""
    if is_offline():
        return ()
    subject = f"the state branch of {repo}"
    commit = call(subject, lambda: _head(repo), repo=repo)
    return () if commit is None else tuple(sorted(list_entries(repo, commit)))


def read_attributes(repo: str) -> str:
    """Return the text of .gitattributes on the state branch, which must exist."""
    commit = call(f"the state branch of {repo}", lambda: _head(repo), repo=repo)
    content = read_checked(repo, commit or "", GIT_ATTRIBUTES) or b""
    return content.decode("utf-8", errors="replace")


def fetch_state(repo: str, digest: str, folder: Path) -> bool:
    """Download a state into a folder, completely or not at all. Other files beside those of the state are not read.

    Returns:
        False if the state is not published.

    Raises:
        HubError: the Hub refuses or does not respond.
    """
    name = _folder_name(digest)
    if not is_published(repo, digest):
        return False
    subject = f"the state {name} of {repo}"
    commit = call(subject, lambda: api().model_info(repo, revision=STATE_BRANCH).sha, repo=repo)
    if commit is None:
        return False
    partial = folder.with_name(f".{folder.name}.fetched")
    shutil.rmtree(partial, ignore_errors=True)
    for file in list_files(repo, commit, name):
        if file.path in {f"{name}/{one}" for one in STATE_FILES}:
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
    if not is_published(repo, digest):
        return None
    commit = call(f"the state {name} of {repo}", lambda: api().model_info(repo, revision=STATE_BRANCH).sha, repo=repo)
    file = next((one for one in list_files(repo, commit or "", name) if one.path == f"{name}/{MANIFEST_FILE}"), None)
    content = b"" if commit is None or file is None else download_checked(repo, commit, file).read_bytes()
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def state_bytes(repo: str, digest: str) -> int | None:
    """Return the size of a published state in bytes, None if it is not published."""
    name = _folder_name(digest)
    if name not in _published_states(repo):
        return None
    commit = call(f"the state {name} of {repo}", lambda: api().model_info(repo, revision=STATE_BRANCH).sha, repo=repo)
    return sum(file.size for file in list_files(repo, commit or "", name))


def _fetch_file(repo: str, commit: str, file: RemoteFile, folder: Path) -> None:
    """Download one file of the state branch into a folder and compare it with the listing of the Hub.

    Raises:
        HubError: the Hub refuses.
        CheckpointError: the Hub sends other content than it lists.
    """
    subject = f"{file.path} of {repo} at {commit}"
    download = functools.partial(
        api().hf_hub_download, repo, file.path, revision=commit, local_dir=folder, tqdm_class=counted_bar()
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
    """Delete all published states except the given ones, and the history of the state branch. Other files stay.

    If another writer commits to the branch at the same time, nothing is deleted; the next step tries again.
    """
    kept = {_folder_name(digest) for digest in digests}
    if not _published_states(repo) - kept:
        return
    branch = f"the state branch of {repo}"
    head = call(branch, lambda: api().model_info(repo, revision=STATE_BRANCH).sha, repo=repo)
    folders = {path: state_folder_of(path) for path in sorted(list_entries(repo, head or ""))}
    outdated = {path: folder for path, folder in folders.items() if folder is not None and folder not in kept}
    if not outdated:
        return
    operations = [CommitOperationDelete(path) for path in outdated]

    def delete() -> bool:
        try:
            create_commit(repo, operations, "forget older states", revision=STATE_BRANCH, parent_commit=head)
        except HfHubHTTPError as error:
            if status_of(error) not in {404, 412}:
                raise
            # The response to an earlier attempt may have been lost, so the content of the branch decides.
            return not _state_folders(repo) & set(outdated.values())
        return True

    subject = f"deleting old states on {branch}"
    if call(subject, delete, repo=repo):
        call(subject, lambda: api().super_squash_history(repo, branch=STATE_BRANCH), repo=repo, publishes=True)


def _is_complete(repo: str, name: str) -> bool | None:
    """Return True if the folder of a state has its manifest and its values, None without a state branch or offline."""
    if is_offline():
        return None
    required = [f"{name}/{MANIFEST_FILE}", f"{name}/{ACCUMULATED_FILE}"]
    try:
        return len(api().get_paths_info(repo, required, revision=STATE_BRANCH)) == len(required)
    except RevisionNotFoundError:
        return None


def _head(repo: str) -> str | None:
    """Return the newest commit of the state branch, None without one."""
    try:
        return api().model_info(repo, revision=STATE_BRANCH).sha
    except RevisionNotFoundError:
        return None


def _published_states(repo: str) -> set[str]:
    return call(f"the state branch of {repo}", lambda: _state_folders(repo), repo=repo)


def _state_folders(repo: str) -> set[str]:
    """Return the folders of the published states; none without a state branch or offline."""
    if is_offline():
        return set()
    try:
        entries = list(api().list_repo_tree(repo, revision=STATE_BRANCH))
    except RevisionNotFoundError:
        return set()
    return {entry.path for entry in entries if not hasattr(entry, "size") and _FOLDER_NAME.fullmatch(entry.path)}


def _folder_name(digest: str) -> str:
    return digest.removeprefix("sha256:")[:DIGEST_CHARACTERS]
