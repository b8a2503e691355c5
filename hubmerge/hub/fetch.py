"""Read from the Hub: resolve revisions to commits, list files, read headers by byte range, download checkpoints."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    WeakFileLock,
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from hubmerge.checkpoints.formats.header import LENGTH_BYTES, header_length
from hubmerge.checkpoints.formats.layout import ADAPTER_CONFIG
from hubmerge.checkpoints.origin import Origin
from hubmerge.errors import HubError
from hubmerge.hub.client import TransientError, api, call
from hubmerge.support.paths import is_inside
from hubmerge.support.text import short_commit

FIRST_BYTES = 64 * 1024
"""How much of a safetensors file is asked for first: enough for the header of most towers."""

_LOCK_SECONDS = 0.05


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repo at one commit."""

    path: str
    size: int


def endpoint() -> str:
    """Return the address of the Hub."""
    return str(api().endpoint)


def cache_folder() -> Path:
    """Return where the Hub cache lies."""
    return Path(constants.HF_HUB_CACHE)


def resolve_commit(kind: str, path: str, revision: str | None) -> str:
    """Return the 40-hex commit that `revision` (default: main) of a model or dataset repo stands at now.

    Raises:
        HubError: the repo or the revision is missing, private or gated away, or the Hub does not answer.
    """
    what = f"{kind} {path} at revision {revision or 'main'}"
    if kind == "dataset":
        commit = call(what, lambda: api().dataset_info(path, revision=revision).sha)
    else:
        commit = call(what, lambda: api().model_info(path, revision=revision).sha)
    if commit is None:
        raise HubError(f"{what}: the Hub names no commit", hint="the repo may be empty")
    return commit


@functools.lru_cache(maxsize=1024)
def list_files(path: str, commit: str, subfolder: str = "") -> tuple[RemoteFile, ...]:
    """Return the files of a model repo at `commit`, or of a folder in it, sorted by path from the top of the repo.

    What a commit holds never changes, so it is asked for once.
    """
    entries = call(
        f"files{f' in {subfolder}' if subfolder else ''} of model {path} at {commit}",
        lambda: list(api().list_repo_tree(path, subfolder or None, revision=commit, recursive=True)),
    )
    # A name that leads out of the folder it is joined to is nothing that a merge needs: as if it was not there.
    files = [
        RemoteFile(entry.path, int(entry.size)) for entry in entries if hasattr(entry, "size") and is_inside(entry.path)
    ]
    return tuple(sorted(files, key=lambda file: file.path))


def is_adapter(files: Sequence[RemoteFile]) -> bool:
    """Tell whether these files, which were chosen of a repo, are an adapter and no whole model."""
    return any(file.path.rpartition("/")[2] == ADAPTER_CONFIG for file in files)


def download(path: str, commit: str, files: Sequence[RemoteFile]) -> Path:
    """Download files of a model repo into the ordinary Hub cache and return the snapshot folder.

    A file already in the cache is not asked for again.
    """
    folder: Path | None = None
    remove_unfinished_downloads(path)
    for file in files:
        name = file.path
        local = call(f"{name} of model {path} at {commit}", partial(hf_hub_download, path, name, revision=commit))
        folder = Path(local).parents[name.count("/")]
        found = Path(local).stat().st_size
        if found != file.size:
            raise HubError(
                f"{name} of model {path} at {commit}: {found} bytes on disk, the Hub says {file.size}",
                hint=f"delete {local} and run again",
            )
    if folder is None:
        raise HubError(f"model {path} at {commit}: holds no files to download", hint="check the repo and revision")
    return folder


def read_file(path: str, commit: str, file: RemoteFile) -> bytes:
    """Return the content of a small file of a model repo, which then lies in the Hub cache."""
    return (download(path, commit, [file]) / file.path).read_bytes()


def remove_unfinished_downloads(path: str, kind: str = "model") -> None:
    """Remove from the Hub cache what a killed process left of its downloads of a repo.

    The client gives each unfinished download a name of its own and never returns to it. One that is under way is
    locked, and left alone.
    """
    name = repo_folder_name(repo_id=path, repo_type=kind)
    for unfinished in (cache_folder() / name / "blobs").glob("*.incomplete"):
        lock = cache_folder() / ".locks" / name / f"{unfinished.name.partition('.')[0]}.lock"
        with contextlib.suppress(OSError), WeakFileLock(lock, timeout=_LOCK_SECONDS):
            unfinished.unlink(missing_ok=True)


def is_cached(path: str, commit: str, file: str) -> bool:
    """Tell whether a file of a model repo lies in the Hub cache."""
    return isinstance(try_to_load_from_cache(path, file, revision=commit), str)


def read_range(path: str, commit: str, file: str, offset: int, length: int) -> bytes:
    """Return `length` bytes of a file from `offset` on, by one HTTP Range request.

    Raises:
        HubError: the server sent something else than the range, again and again.
    """
    what = f"bytes {offset}-{offset + length - 1} of {file} of model {path} at {commit}"
    url = hf_hub_url(path, file, revision=commit, endpoint=api().endpoint)
    headers = {**build_hf_headers(library_name="hubmerge"), "Range": f"bytes={offset}-{offset + length - 1}"}

    def fetch() -> bytes:
        received = bytearray()
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=timeout) as response:
            if response.status_code >= 400:
                response.read()
                hf_raise_for_status(response)
            if response.status_code != 206 and offset != 0:  # a server without ranges answers with the whole file
                raise HubError(f"{what}: the server does not serve ranges (status {response.status_code})")
            for chunk in response.iter_bytes():
                received += chunk
                if len(received) >= length:
                    break
        if len(received) < length:
            raise TransientError(f"the server sent {len(received)} bytes, asked for were {length}")
        return bytes(received[:length])

    return call(what, fetch)


def read_header(path: str, commit: str, file: RemoteFile) -> bytes:
    """Return the header of a safetensors file, its 8 bytes of length in front, by two Range requests at most.

    Raises:
        CheckpointError: the first bytes are not those of a safetensors file.
    """
    origin = Origin(f"{path}@{short_commit(commit)}", repo=path, commit=commit)
    first = read_range(path, commit, file.path, 0, min(FIRST_BYTES, file.size))
    length = LENGTH_BYTES + header_length(first, origin.in_file(file.path), size=file.size)
    if length <= len(first):
        return first[:length]
    return first + read_range(path, commit, file.path, len(first), length - len(first))
