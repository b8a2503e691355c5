"""Files of tokenizers and configs beside them, read at the pinned commit of their model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from hubmerge.errors import CheckpointError
from hubmerge.hub import fetch
from hubmerge.stream.sources import Source, files_below

MOST_BYTES = 1 << 28
"""Size of the largest file of a tokenizer that is read."""


def read_files(source: Source, selects: Callable[[str], bool]) -> dict[str, bytes]:
    """Return the content of the files of a model that a function selects by their names, without its adapter.

    Raises:
        CheckpointError: a file is too large for a tokenizer.
        HubError: a file cannot be read.
    """
    if source.is_local:
        folder = Path(source.reference.path)
        names = sorted(filter(selects, files_below(folder)))
        _check_sizes(source, {name: (folder / name).stat().st_size for name in names})
        return {name: (folder / name).read_bytes() for name in names}
    repo, commit = source.reference.path, source.commit
    listed = fetch.list_files(repo, commit, source.subfolder)
    files = {name: file for file in listed if selects(name := source.name_of(file))}
    _check_sizes(source, {name: file.size for name, file in files.items()})
    return {name: fetch.read_file(repo, commit, file) for name, file in files.items()}


def listed_digests(source: Source, selects: Callable[[str], bool]) -> dict[str, str]:
    """Return the digests of such files without reading those on the Hub; an empty digest is not known."""
    if source.is_local:
        return {name: _sha256(content) for name, content in read_files(source, selects).items()}
    listed = fetch.list_files(source.reference.path, source.commit, source.subfolder)
    return {name: file.digest for file in listed if selects(name := source.name_of(file))}


def files_digest(files: Mapping[str, bytes]) -> str:
    """Return `sha256:<hex>` over names and contents of files."""
    text = "".join(f"{name}\0{_sha256(files[name])}\n" for name in sorted(files))
    return f"sha256:{_sha256(text.encode())}"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check_sizes(source: Source, sizes: Mapping[str, int]) -> None:
    for name, size in sizes.items():
        if size > MOST_BYTES:
            raise CheckpointError(
                f"{source.label}: {name} has {size} bytes, expected at most {MOST_BYTES} in a file of a tokenizer",
                hint="remove the file from the model, or name another tokenizer",
                file=name,
            )
