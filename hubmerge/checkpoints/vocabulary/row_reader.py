"""Rows of a tensor, read from its file in pieces where they are asked for in ascending order."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from hubmerge.checkpoints.checkpoint import Checkpoint

ELEMENTS_AT_ONCE = 1 << 20
"""Values of a piece."""


class RowReader:
    """Reader of the rows of one tensor.

    Attributes:
        dtype: the stored dtype.
        row_shape: the shape of a row.
        rows_at_once: the number of rows of a piece.
    """

    def __init__(self, checkpoint: Checkpoint, name: str, axis: int, order: torch.Tensor | None = None) -> None:
        """Prepare to read.

        Args:
            checkpoint: the model.
            name: the tensor.
            axis: its dimension that counts the rows.
            order: the rows in the order in which they are asked for; None for an ascending one.
        """
        info = checkpoint.tensors[name]
        self.dtype = info.dtype
        self.row_shape = (*info.shape[:axis], *info.shape[axis + 1 :])
        columns = max(1, math.prod(self.row_shape))
        self.rows_at_once = max(1, ELEMENTS_AT_ONCE // columns)
        ascending = order is None or bool((order[1:] >= order[:-1]).all())
        self._pieces: Iterator[torch.Tensor] | None = None
        if axis == 0 and ascending and checkpoint.can_read_pieces(name):
            self._pieces = checkpoint.read_pieces(name, self.rows_at_once * columns)
            self._piece, self._start = torch.zeros((0, *self.row_shape), dtype=self.dtype), 0
        else:
            self._piece, self._start = checkpoint.read(name).movedim(axis, 0), 0

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """Return rows, in memory of their own. They are in the order that was named when the reader was made."""
        if self._pieces is None:
            return self._piece[rows]
        found = torch.empty((len(rows), *self.row_shape), dtype=self.dtype)
        done = 0
        while done < len(rows):
            end = self._start + len(self._piece)
            count = int((rows[done:] < end).sum())
            found[done : done + count] = self._piece[rows[done : done + count] - self._start]
            done += count
            if done < len(rows):
                self._piece, self._start = next(self._pieces).view(-1, *self.row_shape), end
        return found
