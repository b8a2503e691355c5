"""Files and metadata of other people in a published step, which its report lists."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hubmerge.cards.data import front_matter
from hubmerge.cards.merge_cards import plain_metadata
from hubmerge.support.text import listed
from hubmerge.verify.finding import Finding
from hubmerge.verify.published import Published

_NOT_LOADED = re.compile(
    r"(LICENSE|LICENCE|NOTICE|COPYING|AUTHORS|CITATION)[^/]*|.*\.(md|rst|pdf|cff|bib|png|jpe?g|gif|svg)"
    r"|.+/.*\.(onnx|onnx_data|gguf|tflite)",
    re.IGNORECASE,
)
"""Files that no library loads together with the weights: texts, pictures, and other formats in folders."""

_LOADED = re.compile(
    r"[^/]+|(.+/)?\.git[^/]*|(additional_chat_templates|custom_generate|heads|history|\d+_[^/]+)/.*"
    r"|.*\.(py|jinja|pkl|pickle|pt|pth|bin)",
    re.IGNORECASE,
)
"""Files that a library may load without being told: at the top of the repo, in folders that it knows, and code."""


def is_never_loaded(name: str) -> bool:
    """Return True for a text, a picture or a license, and for other formats in folders."""
    return _NOT_LOADED.fullmatch(name) is not None


def kept_files(published: Published) -> frozenset[str]:
    """Return the files of other people that were there when the step was published, and are unchanged."""
    kept, found = published.report.kept_files, published.files.files
    return frozenset(name for name, digest in kept.items() if found.get(name) == digest)


def check_kept(published: Published) -> Iterator[Finding]:
    """Name the files of other people.

    A file that a library loads with the model is a difference; one that it may load from a folder cannot be verified.
    """
    harmless, unknown = [], []
    for name in sorted(kept_files(published)):
        if is_never_loaded(name):
            harmless.append(name)
        elif _LOADED.fullmatch(name):
            yield Finding("files", "differs", f"{name} of other people may be loaded with the model")
        else:
            unknown.append(name)
    if harmless:
        yield Finding("files", "same", f"of other people, as they were at this step: {listed(harmless)}")
    if unknown:
        yield Finding("files", "unknown", f"of other people, which nothing here proves: {listed(unknown)}")


def without_kept_metadata(card: str, expected: str, kept: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return a card with the generated metadata if people only added what the report lists, and the added keys.

    Args:
        card: the published card.
        expected: the card that is written from the report.
        kept: the metadata in the report.
    """
    theirs, ours = (plain_metadata(front_matter(text)) for text in (card, expected))
    if not kept or theirs != {**ours, **kept}:
        return card, []
    body = card.removeprefix("---\n").partition("\n---\n")[2]
    head = expected.removeprefix("---\n").partition("\n---\n")[0]
    return f"---\n{head}\n---\n{body}", sorted(kept)
