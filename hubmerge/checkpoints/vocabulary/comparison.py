"""Comparison of vocabularies with one number of rows, from the files of tokenizers alone."""

from __future__ import annotations

from collections.abc import Mapping

from hubmerge.checkpoints.vocabulary.tokenizer import SETTINGS_FILE, TOKENIZER_FILE, json_object, vocabulary_of
from hubmerge.support.text import counted

TOKENS_NAMED = 3
"""Number of tokens that a warning names."""


def is_vocabulary_file(name: str) -> bool:
    """Return True for a file of which the tokens can be read without a library."""
    return name in {TOKENIZER_FILE, SETTINGS_FILE, "vocab.json", "vocab.txt", "added_tokens.json"}


def plain_vocabulary(files: Mapping[str, bytes]) -> dict[str, int] | None:
    """Return the tokens in the files of a tokenizer with their numbers; None if the files do not have them so."""
    found: dict[str, int] | None = None
    try:
        if TOKENIZER_FILE in files:
            found = vocabulary_of(json_object(files[TOKENIZER_FILE]))
        elif "vocab.json" in files:
            found = json_object(files["vocab.json"]) | json_object(files.get("added_tokens.json"))
        elif "vocab.txt" in files:
            lines = files["vocab.txt"].decode("utf-8", errors="replace").split("\n")
            found = {line.rstrip("\r"): number for number, line in enumerate(lines) if line.rstrip("\r")}
    except (KeyError, TypeError, IndexError):
        return None
    if found is None:
        return None
    decoder = json_object(files.get(SETTINGS_FILE)).get("added_tokens_decoder")
    for number, token in decoder.items() if isinstance(decoder, dict) else ():
        if isinstance(token, dict) and number.isdigit() and isinstance(token.get("content"), str):
            found.setdefault(token["content"], int(number))
    return {token: number for token, number in found.items() if isinstance(number, int)}


def differing_tokens(base: Mapping[str, int], own: Mapping[str, int], rows: int) -> str | None:
    """Return which rows of a model belong to other tokens than those of the base model, in words; None if none does.

    Args:
        base: the tokens of the base model with their numbers.
        own: those of the model.
        rows: the number of rows of both.
    """
    names = {number: token for token, number in base.items()}
    others = sorted((number, token) for token, number in own.items() if number < rows and names.get(number) != token)
    if not others:
        return None
    shown = [
        f"row {number} is {token!r} and {'no token' if number not in names else repr(names[number])} in the base model"
        for number, token in others[:TOKENS_NAMED]
    ]
    more = f"; {len(others) - TOKENS_NAMED} more" if len(others) > TOKENS_NAMED else ""
    return f"{counted(len(others), 'row belongs', 'rows belong')} to other tokens: {'; '.join(shown)}{more}"
