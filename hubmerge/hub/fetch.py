"""Reads from the Hub: commits of revisions, lists of files, headers and ranges of bytes, downloads."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import RevisionNotFoundError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    WeakFileLock,
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from hubmerge.checkpoints.formats.layout import ADAPTER_CONFIG, LORA_FILES
from hubmerge.checkpoints.origin import Origin
from hubmerge.errors import DatasetError, HubError
from hubmerge.hub.checked_files import RemoteFile, download_checked
from hubmerge.hub.client import api, endpoint
from hubmerge.hub.explain import explain
from hubmerge.hub.failures import TransientError
from hubmerge.hub.offline import cached_commit, cached_files, is_offline, refuse_unpinned
from hubmerge.hub.retry import call
from hubmerge.support import interrupts
from hubmerge.support.paths import is_inside
from hubmerge.support.progress import count_work
from hubmerge.support.text import short_commit
from merge_recipes.references import is_commit

FIRST_BYTES = 64 * 1024
"""Bytes of the first request for a safetensors header: enough for the headers of most towers."""

_LOCK_SECONDS = 0.05


def hub_cache() -> Path:
    """Return the folder of the Hub cache."""
    return Path(constants.HF_HUB_CACHE)


def resolve_commit(kind: str, path: str, revision: str | None) -> str:
    """Return the commit, 40 hex digits, that a revision of a model or dataset repo names now.

    Args:
        kind: "model" or "dataset".
        path: the repo, owner/name.
        revision: a branch, tag or commit; None for main.

    Raises:
        HubError: the repo or the revision is missing, private or gated, or the Hub does not respond.
    """
    if is_offline():
        if revision is not None and is_commit(revision):
            return revision
        raise refuse_unpinned(kind, path, revision)
    found = _ask_commit(kind, path, revision)
    if isinstance(found, RevisionNotFoundError):
        pinned = revision if is_commit(revision) else None
        error = explain(found, _revision(kind, path, revision), repo=path, commit=pinned)
        if kind == "dataset":
            error = DatasetError(error.message, hint=error.hint, key="revision", repo=path, commit=pinned)
        raise error from found
    return found


def find_commit(kind: str, path: str, revision: str | None) -> str | None:
    """Return the commit that a revision of a repo names now, or None if the revision does not exist.

    Raises:
        HubError: the repo is missing, private, gated or empty, or the Hub does not respond.
    """
    if is_offline():
        return cached_commit(path, revision or "main")
    found = _ask_commit(kind, path, revision)
    return None if isinstance(found, RevisionNotFoundError) else found


def _revision(kind: str, path: str, revision: str | None) -> str:
    return f"{kind} {path} at revision {revision or 'main'}"


def _ask_commit(kind: str, path: str, revision: str | None) -> str | RevisionNotFoundError:
    """Return the commit of a revision, or the answer that the revision does not exist."""
    subject = _revision(kind, path, revision)
    describe = api().dataset_info if kind == "dataset" else api().model_info

    def ask() -> str | RevisionNotFoundError | None:
        try:
            return describe(path, revision=revision).sha
        except RevisionNotFoundError as error:
            return error

    found = call(subject, ask, repo=path)
    if found is None:
        raise HubError(f"{subject}: the Hub names no commit", hint="add a first commit to the repo", repo=path)
    return found


@functools.lru_cache(maxsize=1024)
def list_files(path: str, commit: str, subfolder: str = "") -> tuple[RemoteFile, ...]:
    """Return the files of a model repo, or of one of its folders, at a commit.

    The result is cached, because the content of a commit never changes.

    Args:
        path: the repo, owner/name.
        commit: the commit, 40 hex digits.
        subfolder: a folder in the repo; empty for the whole repo.

    Returns:
        The files, sorted by path; every path starts at the top of the repo.
    """
    if is_offline():
        return cached_files(path, commit, subfolder)
    entries = call(
        f"files{f' in {subfolder}' if subfolder else ''} of model {path} at {commit}",
        lambda: list(api().list_repo_tree(path, subfolder or None, revision=commit, recursive=True)),
        repo=path,
        commit=commit,
    )
    # A path that leads out of its folder, for example ../x, is never needed for a merge.
    files = [RemoteFile.of(entry) for entry in entries if hasattr(entry, "size") and is_inside(entry.path)]
    return tuple(sorted(files, key=lambda file: file.path))


def is_adapter(files: Sequence[RemoteFile]) -> bool:
    """Return True if files belong to an adapter and not to a whole model."""
    return any(file.path.rpartition("/")[2] in {ADAPTER_CONFIG, *LORA_FILES} for file in files)


def download(path: str, commit: str, files: Sequence[RemoteFile]) -> Path:
    """Download files of a model repo into the Hub cache, unless they are there, and return the snapshot folder.

    The content of every file is compared with the digest that the Hub lists. A damaged file of the cache is set aside
    and downloaded again.

    Raises:
        HubError: the Hub refuses, a file has other content than the Hub lists, or there are no files.
        MachineError: a file cannot be written to disk.
    """
    folder: Path | None = None
    remove_unfinished_downloads(path)
    for file in files:
        folder = download_checked(path, commit, file).parents[file.path.count("/")]
    if folder is None:
        raise HubError(
            f"model {path} at {commit}: no files to download",
            hint="check the spelling of the repo and the revision",
            repo=path,
            commit=commit,
        )
    return folder


def read_file(path: str, commit: str, file: RemoteFile) -> bytes:
    """Return the content of a small file of a model repo, through the Hub cache."""
    return (download(path, commit, [file]) / file.path).read_bytes()


def read_checked(path: str, commit: str, name: str) -> bytes | None:
    """Return the content of a file of a model repo by its path, or None if the commit has no such file."""
    file = next((file for file in list_files(path, commit) if file.path == name), None)
    return None if file is None else download_checked(path, commit, file).read_bytes()


def remove_unfinished_downloads(path: str, kind: str = "model") -> None:
    """Remove from the Hub cache the unfinished downloads that a killed process left for a repo.

    The client gives each unfinished download a unique name and never resumes it. A download in progress is locked
    and stays.
    """
    name = repo_folder_name(repo_id=path, repo_type=kind)
    for unfinished in (hub_cache() / name / "blobs").glob("*.incomplete"):
        lock = hub_cache() / ".locks" / name / f"{unfinished.name.partition('.')[0]}.lock"
        with contextlib.suppress(OSError), WeakFileLock(lock, timeout=_LOCK_SECONDS):
            unfinished.unlink(missing_ok=True)


def is_cached(path: str, commit: str, file: str) -> bool:
    """Return True if a file of a model repo is in the Hub cache."""
    return isinstance(try_to_load_from_cache(path, file, revision=commit), str)


def read_range(path: str, commit: str, file: str, offset: int, length: int) -> bytes:
    """Return `length` bytes of a file, starting at `offset`, by one HTTP Range request.

    Raises:
        HubError: the Hub refuses, or the server does not support ranges.
    """
    subject = f"bytes {offset}-{offset + length - 1} of {file} of model {path} at {commit}"
    url = hf_hub_url(path, file, revision=commit, endpoint=endpoint())
    headers = {**build_hf_headers(library_name="hubmerge"), "Range": f"bytes={offset}-{offset + length - 1}"}

    def fetch() -> bytes:
        received = bytearray()
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=timeout) as response:
            if response.status_code >= 400:
                response.read()
                hf_raise_for_status(response)
            if response.status_code != 206 and offset != 0:  # a server without ranges sends the whole file
                raise HubError(
                    f"{subject}: the server does not support ranges (HTTP {response.status_code})",
                    hint="write `fetch: cache` in the recipe",
                    repo=path,
                    commit=commit,
                    file=file,
                )
            for chunk in response.iter_bytes():
                interrupts.check()
                received += chunk
                count_work(len(chunk))
                if len(received) >= length:
                    break
        if len(received) < length:
            raise TransientError(f"the server sent {len(received)} bytes, expected {length}")
        return bytes(received[:length])

    return call(subject, fetch, repo=path, commit=commit, file=file)


def read_header(path: str, commit: str, file: RemoteFile) -> bytes:
    """Return the length field (8 bytes) and the header of a safetensors file, by at most two Range requests.

    Raises:
        CheckpointError: the file does not start like a safetensors file.
    """
    from hubmerge.checkpoints.formats.header import LENGTH_BYTES, header_length

    if is_offline():
        with (download(path, commit, [file]) / file.path).open("rb") as stream:
            first = stream.read(LENGTH_BYTES)
            origin = Origin(f"{path}@{short_commit(commit)}", repo=path, commit=commit)
            return first + stream.read(header_length(first, origin.in_file(file.path), size=file.size))
    origin = Origin(f"{path}@{short_commit(commit)}", repo=path, commit=commit)
    first = read_range(path, commit, file.path, 0, min(FIRST_BYTES, file.size))
    length = LENGTH_BYTES + header_length(first, origin.in_file(file.path), size=file.size)
    if length <= len(first):
        return first[:length]
    return first + read_range(path, commit, file.path, len(first), length - len(first))
