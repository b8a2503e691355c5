"""Text about the vocabulary of a merged model: its size, and where the rows of tokens come from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hubmerge.plan.vocabulary import PlannedVocabulary
from hubmerge.support.text import counted

TOKENS_SHOWN = 12
"""Number of lines of the table."""

TOKENS_LISTED = 1000
"""Number of rows of the table in JSON."""


def vocabulary_lines(vocabulary: PlannedVocabulary | None) -> Iterator[str]:
    """Yield the lines of a plan about a vocabulary; none if the base model's tokenizer is copied."""
    if vocabulary is None:
        return
    report = vocabulary.report
    empty = report.rows - report.tokens
    filled = f", {counted(empty, 'row')} without a token" if empty else ""
    yield f"tokens   {report.source}: {counted(report.tokens, 'token')} in {counted(report.rows, 'row')}{filled}"
    if not vocabulary.table:
        yield "         all models have all tokens"
        return
    yield f"         {counted(len(vocabulary.table), 'token')} that not all models have, and the source of the row:"
    shown = [(json.dumps(token, ensure_ascii=False), text) for token, text in vocabulary.table[:TOKENS_SHOWN]]
    width = max(len(token) for token, _ in shown)
    yield from (f"           {token.ljust(width)}  {text}" for token, text in shown)
    if len(vocabulary.table) > TOKENS_SHOWN:
        yield f"           and {len(vocabulary.table) - TOKENS_SHOWN} more (--json lists them)"


def vocabulary_dict(vocabulary: PlannedVocabulary | None) -> dict[str, Any] | None:
    """Return the same as plain JSON values."""
    if vocabulary is None:
        return None
    report = vocabulary.report
    return {
        "source": report.source,
        "tokens": report.tokens,
        "rows": report.rows,
        "others": report.others,
        "table": [{"token": token, "row": text} for token, text in vocabulary.table[:TOKENS_LISTED]],
    }
