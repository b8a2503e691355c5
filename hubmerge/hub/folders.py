"""Publishing a folder: one commit with the files that a repo lacks."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile

from hubmerge.hub.checked_files import RemoteFile, difference
from hubmerge.hub.failures import status_of
from hubmerge.hub.retry import call
from hubmerge.support import interrupts


def publish_folder(
    kind: str, repo: str, folder: Path, *, title: str, endpoint: str | None = None, token: str | None = None
) -> bool:
    """Create a repo if needed, and commit the files that are missing there or have other content.

    Other files of the repo are unchanged.

    Args:
        kind: "model" or "dataset".
        repo: the repo, owner/name.
        folder: the folder with the files.
        title: the title of the commit.
        endpoint: the address of the Hub; None for HF_ENDPOINT.
        token: the access token; None for HF_TOKEN.

    Returns:
        Whether a commit was needed.

    Raises:
        HubError: the Hub refuses, for example because the token has no write access.
    """
    api = HfApi(endpoint=endpoint, token=token)
    subject = f"{kind} {repo}"
    call(f"creating {subject}", lambda: api.create_repo(repo, repo_type=kind, exist_ok=True), repo=repo, publishes=True)
    there = call(f"files of {subject}", lambda: _files_there(api, kind, repo), repo=repo)
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    missing = {name: path for name, path in paths.items() if not _is_same(path, there.get(name))}
    if not missing:
        return False

    def commit() -> None:
        operations = [CommitOperationAdd(name, path) for name, path in missing.items()]
        api.preupload_lfs_files(repo, operations, repo_type=kind, free_memory=False)
        with interrupts.publishing():
            api.create_commit(repo, operations, commit_message=title, repo_type=kind)

    call(f"publishing to {subject}", commit, repo=repo)
    return True


def _files_there(api: HfApi, kind: str, repo: str) -> dict[str, RepoFile]:
    try:
        entries = list(api.list_repo_tree(repo, recursive=True, repo_type=kind))
    except HfHubHTTPError as error:
        # On some Hubs a repo without commits has no main branch to list.
        if status_of(error) == 404:
            return {}
        raise
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def _is_same(path: Path, there: RepoFile | None) -> bool:
    return there is not None and difference(path, RemoteFile.of(there)) is None
