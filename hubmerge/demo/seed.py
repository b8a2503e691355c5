"""Push a demo stream to a Hub: one commit for each repo, and none where the repo holds the same files already."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile

from hubmerge.demo.stream import DemoRepo, DemoStream
from hubmerge.hub.client import call

Progress = Callable[[str], None]


def seed_hub(
    stream: DemoStream, progress: Progress = print, *, endpoint: str | None = None, token: str | None = None
) -> int:
    """Push every repo of the stream that the Hub does not hold yet; return how many were pushed.

    endpoint, token: the Hub; by default the one that HF_ENDPOINT and HF_TOKEN name.

    Raises:
        HubError: the Hub refuses, for example because the token may not write to the stream's namespace.
    """
    api = HfApi(endpoint=endpoint, token=token)
    repos = stream.repos()
    pushed = sum(_push(api, repo) for repo in repos)
    progress(f"pushed {pushed} of {len(repos)} repos to {api.endpoint}, the others were there already")
    return pushed


def published_steps(repo: str, *, endpoint: str | None = None, token: str | None = None) -> list[str]:
    """The web addresses of a merged model's steps, first to last."""
    api = HfApi(endpoint=endpoint, token=token)
    refs = call(f"tags of {repo}", lambda: api.list_repo_refs(repo))
    tags = sorted(tag.name for tag in refs.tags if tag.name.startswith("step-"))
    return [f"{api.endpoint}/{repo}/tree/{tag}" for tag in tags]


def _push(api: HfApi, repo: DemoRepo) -> bool:
    """Make the repo hold the folder's files; False if it did before."""
    what = f"{repo.kind} {repo.repo}"
    call(f"creating {what}", lambda: api.create_repo(repo.repo, repo_type=repo.kind, exist_ok=True))
    there = call(f"files of {what}", lambda: _files_there(api, repo))
    paths = sorted(path for path in repo.folder.rglob("*") if path.is_file())
    named = {path.relative_to(repo.folder).as_posix(): path for path in paths}
    missing = {name: path for name, path in named.items() if not _same(path, there.get(name))}
    if not missing:
        return False

    def commit() -> None:
        operations = [CommitOperationAdd(name, path) for name, path in missing.items()]
        api.create_commit(repo.repo, operations, commit_message="Add the files of the demo", repo_type=repo.kind)

    call(f"pushing {what}", commit)
    return True


def _files_there(api: HfApi, repo: DemoRepo) -> dict[str, RepoFile]:
    try:
        entries = list(api.list_repo_tree(repo.repo, recursive=True, repo_type=repo.kind))
    except HfHubHTTPError as error:
        # A repo without any commit has no main branch to list, on some Hubs.
        if error.response is not None and error.response.status_code == 404:
            return {}
        raise
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def _same(path: Path, there: RepoFile | None) -> bool:
    if there is None or there.size != path.stat().st_size:
        return False
    content = path.read_bytes()
    if there.lfs is not None:
        return hashlib.sha256(content).hexdigest() == there.lfs.sha256
    # What git calls a file's content: the sha1 of a short header and the bytes.
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return blob.hexdigest() == there.blob_id
