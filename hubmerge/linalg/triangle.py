"""Symmetric matrices stored as their upper triangle: half the memory, the same values."""

from __future__ import annotations

from hubmerge.support.lazy import torch


def packed_length(side: int) -> int:
    """Return the number of elements in the upper triangle of a matrix of (side, side)."""
    return side * (side + 1) // 2


def pack_triangle(matrix: torch.Tensor) -> torch.Tensor:
    """Return the upper triangle of a symmetric (n, n) matrix, row by row, as n (n + 1) / 2 values.

    A stack of (..., n, n) matrices gives (..., n (n + 1) / 2) values.
    """
    if _row_by_row(matrix, matrix.dim() - 1):
        return torch.cat([row[start:] for start, row in enumerate(matrix)])
    rows, columns = _places(matrix.shape[-1], matrix.device)
    return matrix[..., rows, columns]


def unpack_triangle(packed: torch.Tensor, side: int) -> torch.Tensor:
    """Return the symmetric (n, n) matrix whose upper triangle `pack_triangle` gave, or a stack of them."""
    matrix = packed.new_empty((*packed.shape[:-1], side, side))
    if not _row_by_row(packed, packed.dim()):
        rows, columns = _places(side, packed.device)
        matrix[..., rows, columns] = packed
        matrix[..., columns, rows] = packed
        return matrix
    begin = 0
    for row in range(side):
        values = packed[begin : begin + side - row]
        matrix[row, row:] = values
        matrix[row:, row] = values
        begin += side - row
    return matrix


def add_to_triangle(packed: torch.Tensor, matrix: torch.Tensor, factor: float) -> torch.Tensor:
    """Return the packed triangle plus `factor` times a symmetric (n, n) matrix."""
    return torch.add(packed, pack_triangle(matrix), alpha=factor)


def _row_by_row(values: torch.Tensor, stacked: int) -> bool:
    """Return True for one matrix on the CPU: copies of rows are fast there, and slow to launch elsewhere."""
    return stacked == 1 and values.device.type == "cpu"


def _places(side: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return row and column of each value of a packed triangle."""
    rows, columns = torch.triu_indices(side, side, device=device)
    return rows, columns
