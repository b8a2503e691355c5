"""Check for other tokens in rows of the same number: rows that are merged although they belong to different tokens."""

from __future__ import annotations

from hubmerge.checkpoints import Checkpoint, MergePlan
from hubmerge.checkpoints.model_class.embeddings import Embeddings, find_embeddings
from hubmerge.checkpoints.vocabulary.comparison import differing_tokens, is_vocabulary_file, plain_vocabulary
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
    expected = plain_vocabulary(read_files(stream.base, is_vocabulary_file))
    found = {number: _difference(expected, source, rows, joint=stream.is_joint) for number, source in others.items()}
    return {number: text for number, text in found.items() if text is not None}


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
    size = base.config.get("vocab_size")
    return size if isinstance(size, int) and any(shape[:1] == (size,) for shape in merged.values()) else None


def _difference(expected: dict[str, int] | None, source: Source, rows: int, *, joint: bool) -> str | None:
    own = plain_vocabulary(read_files(source, is_vocabulary_file))
    text = None if own is None or expected is None else differing_tokens(expected, own, rows)
    if text is None:
        return None
    way = "`tokenizer_source: base` or `union` merges token by token" if joint else "they are merged all the same"
    return f"{source.label}: {text}; {way}"
