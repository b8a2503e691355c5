"""Texts of a dataset and their tokens, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import torch

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.columns import check_texts, text_column
from merge_recipes import DatasetReference

Tokens = list[int]


def read_texts(rows: datasets.Dataset, source: DatasetReference, where: str) -> list[str]:
    """Return the texts of all rows, in order.

    Raises:
        EvaluationError: the column is missing or does not contain texts, or there are no rows.
    """
    return read_column(rows, text_column(source), "text", where)


def read_column(rows: datasets.Dataset, column: str, role: str, where: str, *, texts: bool = True) -> list[Any]:
    """Return the values of a column, in order.

    Args:
        rows: the dataset.
        column: the name of the column.
        role: its key in the recipe.
        where: the task and its dataset, for messages.
        texts: True to check that the column holds texts.

    Raises:
        EvaluationError: the column is missing, does not contain texts or lacks a value, or there are no rows.
    """
    if texts:
        check_texts(rows.features, column, where, role)
    values = rows.with_format(None)[column][:]
    missing = next((row for row, value in enumerate(values) if value is None), None)
    if missing is not None:
        raise EvaluationError(f"{where}: row {missing} has no {role} in column {column!r}")
    if not values:
        raise EvaluationError(f"{where}: no examples", hint="set `split` of the dataset to a split with examples")
    return list(values)


def tokenized(tokenizer: Any, texts: Sequence[str], limit: int | None) -> list[Tokens]:
    """Return the tokens of every text with the special tokens of the tokenizer, at most `limit` if given."""
    cut = {"truncation": True, "max_length": limit} if limit is not None else {}
    found: list[Tokens] = tokenizer(list(texts), add_special_tokens=True, verbose=False, **cut)["input_ids"]
    return found


def batches(
    texts: Sequence[Tokens], size: int, *, most_cells: int | None = None, equal: bool = False
) -> Iterator[list[int]]:
    """Yield the numbers of the texts in each batch, the longest texts first.

    Args:
        texts: the tokens of all texts.
        size: the largest number of texts in a batch.
        most_cells: the largest number of tokens in a batch with padding. A batch has at least one text.
        equal: True to put only texts of the same length into a batch, so that nothing is padded.
    """
    order = sorted(range(len(texts)), key=lambda number: (-len(texts[number]), number))
    batch: list[int] = []
    for number in order:
        longest = len(texts[batch[0]]) if batch else 0
        full = len(batch) == size or (most_cells is not None and longest * (len(batch) + 1) > most_cells)
        if batch and (full or (equal and len(texts[number]) < longest)):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def padded(
    texts: Sequence[Tokens], padding: int, device: torch.device, *, left: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens and attention mask of one batch, int64 (B, L), padded on the right or on the left."""
    length = max(len(text) for text in texts)
    tokens = torch.full((len(texts), length), padding, dtype=torch.int64)
    mask = torch.zeros((len(texts), length), dtype=torch.int64)
    for row, text in enumerate(texts):
        begin = length - len(text) if left else 0
        tokens[row, begin : begin + len(text)] = torch.tensor(text, dtype=torch.int64)
        mask[row, begin : begin + len(text)] = 1
    return tokens.to(device), mask.to(device)
