"""Make a repo hold the files of a folder: one commit, or none where it holds them already."""

from __future__ import annotations

import hashlib
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile

from hubmerge.hub.client import call, status_of


def publish_folder(
    kind: str, repo: str, folder: Path, *, title: str, endpoint: str | None = None, token: str | None = None
) -> bool:
    """Create the repo if needed and commit the files it lacks or holds otherwise; other files stay as they are.

    kind: "model" or "dataset". endpoint, token: the Hub, by default the one that HF_ENDPOINT and HF_TOKEN name.
    Returns whether there was anything to commit.

    Raises:
        HubError: the Hub refuses, for example because the token may not write to the repo.
    """
    api = HfApi(endpoint=endpoint, token=token)
    what = f"{kind} {repo}"
    call(f"creating {what}", lambda: api.create_repo(repo, repo_type=kind, exist_ok=True))
    there = call(f"files of {what}", lambda: _files_there(api, kind, repo))
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    missing = {name: path for name, path in paths.items() if not _is_same(path, there.get(name))}
    if not missing:
        return False

    def commit() -> None:
        operations = [CommitOperationAdd(name, path) for name, path in missing.items()]
        api.create_commit(repo, operations, commit_message=title, repo_type=kind)

    call(f"pushing {what}", commit)
    return True


def _files_there(api: HfApi, kind: str, repo: str) -> dict[str, RepoFile]:
    try:
        entries = list(api.list_repo_tree(repo, recursive=True, repo_type=kind))
    except HfHubHTTPError as error:
        # On some Hubs a repo without any commit has no main branch to list.
        if status_of(error) == 404:
            return {}
        raise
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def _is_same(path: Path, there: RepoFile | None) -> bool:
    if there is None or there.size != path.stat().st_size:
        return False
    content = path.read_bytes()
    if there.lfs is not None:
        return hashlib.sha256(content).hexdigest() == there.lfs.sha256
    # git's name for a file's content: the sha1 of a short header and the bytes.
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return blob.hexdigest() == there.blob_id
