"""Check for other tokens in rows of the same number: rows that are merged although they belong to different tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubmerge.checkpoints import Checkpoint, MergePlan
from hubmerge.checkpoints.formats.layout import CONFIG_FILE
from hubmerge.checkpoints.model_class.embeddings import Embeddings, find_embeddings
from hubmerge.checkpoints.vocabulary.comparison import differing_tokens, is_vocabulary_file, plain_vocabulary
from hubmerge.checkpoints.vocabulary.tokenizer import json_object
from hubmerge.plan.headers import Headers
from hubmerge.stream.sources import Source
from hubmerge.stream.stream import Stream
from hubmerge.stream.tokenizer_files import listed_digests, read_files


def find_other_tokens(stream: Stream, headers: Headers, merge: MergePlan) -> dict[int, str]:
    """Return a warning for each entry whose rows belong to other tokens than those of the base model.

    Args:
        stream: the stream.
        headers: the opened models.
        merge: the plan of their tensors.

    Raises:
        HubError: a file cannot be read.
    """
    if headers.vocabulary is not None:
        return {}
    base = listed_digests(stream.base, is_vocabulary_file)
    others = {
        number: source
        for number, source in headers.sources.items()
        if _may_differ(base, listed_digests(source, is_vocabulary_file))
    }
    rows = _merged_rows(headers.base, merge) if base and others else None
    if rows is None:
        return {}
    files = read_files(stream.base, is_vocabulary_file)
    found = {number: _difference(files, base, source, rows, joint=stream.is_joint) for number, source in others.items()}
    return {number: text for number, text in found.items() if text is not None}


def difference_of_folders(base: Path, own: Path) -> str | None:
    """Return which rows of a local model belong to other tokens than those of a local base model; None if none does.

    Models with another number of rows are left to the plan.
    """
    configs = [json_object(_content(folder / CONFIG_FILE)) for folder in (base, own)]
    sizes = [_size(config) for config in configs]
    vocabularies = [
        plain_vocabulary({path.name: path.read_bytes() for path in folder.iterdir() if is_vocabulary_file(path.name)})
        for folder in (base, own)
    ]
    expected, found = vocabularies
    if sizes[0] is None or sizes[0] != sizes[1] or expected is None or found is None:
        return None
    return differing_tokens(expected, found, sizes[0])


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _size(config: dict[str, Any]) -> int | None:
    """Return the number of rows of embeddings by a config, None if it does not say."""
    inner = config.get("text_config")
    size = config.get("vocab_size", inner.get("vocab_size") if isinstance(inner, dict) else None)
    return size if isinstance(size, int) else None


def _may_differ(base: dict[str, str], own: dict[str, str]) -> bool:
    """Return True if two tokenizers may have different tokens; a model without tokenizer files has the base model's."""
    return bool(own) and (own != base or "" in own.values())


def _merged_rows(base: Checkpoint, merge: MergePlan) -> int | None:
    """Return the number of rows of the merged embeddings, None if none is merged."""
    merged = {tensor.name: tensor.shape for tensor in merge.merged}
    found = find_embeddings(base.config, base.tensors)
    if isinstance(found, Embeddings):
        rows = [merged[name][axis] for name, axis in found.axes.items() if name in merged]
        return max(rows, default=None)
    size = _size(base.config)
    return size if size is not None and any(shape[:1] == (size,) for shape in merged.values()) else None


def _difference(
    files: Mapping[str, bytes], digests: Mapping[str, str], source: Source, rows: int, *, joint: bool
) -> str | None:
    """Return a warning if a model has other tokens than the base model; equal files are not read again."""
    listed = listed_digests(source, is_vocabulary_file)
    equal = {name for name, digest in listed.items() if digest and digests.get(name) == digest}
    own = read_files(source, lambda name: is_vocabulary_file(name) and name not in equal)
    expected, found = plain_vocabulary(files), plain_vocabulary({**own, **{name: files[name] for name in equal}})
    text = None if found is None or expected is None else differing_tokens(expected, found, rows)
    if text is None:
        return None
    way = "`tokenizer_source: base` or `union` merges token by token" if joint else "they are merged all the same"
    return f"{source.label}: {text}; {way}"
