"""Sentences of the Hub in answers that refuse a request."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from hubmerge.hub.failures import REFUSED_INSIDE, causes
from hubmerge.support.redaction import shown

MAX_CHARACTERS = 300
"""Length of a sentence that is shown."""

MAX_SENTENCES = 5
"""Number of sentences that are shown of one answer."""

MAX_BODY_BYTES = 1 << 20
"""Size of the largest body that is searched for sentences."""

_KEYS = ("error", "error_description", "message", "errors", "detail")
_XML_MESSAGE = re.compile(r"<Message>([^<]+)</Message>")
"""Sentence in the errors of storage servers."""


def hub_sentences(failure: Exception) -> str:
    """Return what the Hub wrote about a failed request, as one short line; empty if it wrote nothing.

    The text comes from another machine, so tokens and control characters are removed, and it is cut.

    Args:
        failure: an error of the client, or one that it caused.
    """
    sentences: list[str] = []
    for sentence in _sentences(failure):
        line = shown(" ".join(sentence[: 4 * MAX_CHARACTERS].split()))
        line = line if len(line) <= MAX_CHARACTERS else f"{line[: MAX_CHARACTERS - 3]}..."
        if line and not any(line.casefold() in known.casefold() for known in sentences):
            sentences.append(line)
        if len(sentences) == MAX_SENTENCES:
            break
    return "; ".join(sentences)


def _sentences(failure: Exception) -> Iterator[str]:
    for link in causes(failure):
        response = getattr(link, "response", None)
        if response is not None:
            yield str(response.headers.get("X-Error-Message") or "")
            yield from _in_body(response)
            return
        if isinstance(link, json.JSONDecodeError):
            yield from _in_text(str(link.doc))
            return
        if isinstance(link, ValueError) and REFUSED_INSIDE.search(str(link)):
            yield str(link)
            return


def _in_body(response: Any) -> Iterator[str]:
    try:
        content: bytes = response.content
    except (
        Exception
    ):  # the body of a stream may be unread or cut, which the client's library reports in classes of its own
        return
    if len(content) <= MAX_BODY_BYTES:
        yield from _in_text(content.decode("utf-8", errors="replace"))


def _in_text(text: str) -> Iterator[str]:
    """Yield the sentences of a body: JSON, the XML of a storage server, or plain text. Pages of HTML have none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        found = _XML_MESSAGE.search(text)
        if found is not None:
            yield found[1]
        elif not text.lstrip().startswith("<"):
            yield text
        return
    yield from _in_value(value)


def _in_value(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and depth < len(_KEYS):
        for one in value[:MAX_SENTENCES]:
            yield from _in_value(one, depth + 1)
    elif isinstance(value, dict) and depth < len(_KEYS):
        for key in _KEYS:
            yield from _in_value(value.get(key), depth + 1)
