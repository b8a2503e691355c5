"""Configs of the merged model: the size of its vocabulary, and the numbers of its special tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_ENDINGS = ("_token_id", "_token_index", "_token_ids")
_LISTS = frozenset({"suppress_tokens", "begin_suppress_tokens"})
_SIZE = "vocab_size"

Translate = Callable[[int], int | None]
"""A function that returns the number in the merged model of a number in the base model; None if it has none."""


def translation(base: Mapping[str, int], merged: Mapping[str, int], rows: int) -> Translate:
    """Return the function that translates the numbers of tokens.

    Args:
        base: the tokens of the base model with their numbers.
        merged: those of the merged model.
        rows: the number of rows of the merged model.
    """
    names = {number: token for token, number in base.items()}

    def translate(number: int) -> int | None:
        if number in names:
            return merged.get(names[number])
        return number if number < rows else None

    return translate


def with_vocabulary(
    config: Mapping[str, Any],
    nested: Sequence[str],
    rows: int,
    translate: Translate,
    own: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a config with the size of a vocabulary and the numbers of its special tokens.

    Args:
        config: the content of config.json.
        nested: the keys that lead to the config of the text model inside of it; empty if it is that one itself.
        rows: the number of rows of the embeddings.
        translate: the translation of numbers of tokens.
        own: the config.json of the model whose tokenizer the merged model has; its numbers are taken as they are.
    """
    changed = with_numbers(config, translate, own)
    if not nested:
        return {**changed, _SIZE: rows}
    inner = config.get(nested[0])
    inner = inner if isinstance(inner, Mapping) else {}
    inner_own = (own or {}).get(nested[0])
    found = with_vocabulary(inner, nested[1:], rows, translate, inner_own if isinstance(inner_own, Mapping) else own)
    changed[nested[0]] = found
    if _SIZE in config and config[_SIZE] == inner.get(_SIZE, config[_SIZE]):
        changed[_SIZE] = rows
    return changed


def with_numbers(
    values: Mapping[str, Any], translate: Translate, own: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a config with the numbers of special tokens in the merged model, without the configs in it."""
    found = dict(values)
    for key, value in values.items():
        if key.endswith(_ENDINGS) or key in _LISTS:
            taken = (own or {}).get(key)
            found[key] = taken if taken is not None else _translated(value, translate)
    for key, value in (own or {}).items():
        if key.endswith(_ENDINGS) and found.get(key) is None:
            found[key] = value
    return found


def _translated(value: Any, translate: Translate) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | list):
        return value
    if isinstance(value, int):
        return translate(value)
    numbers = [translate(one) if type(one) is int else one for one in value]
    return [one for one in numbers if one is not None]
