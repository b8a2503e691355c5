"""Symmetric matrices stored as their upper triangle: half the memory, the same values."""

from __future__ import annotations

from hubmerge.support.lazy import torch


def packed_length(side: int) -> int:
    """Return the number of elements in the upper triangle of a matrix of (side, side)."""
    return side * (side + 1) // 2


def pack_triangle(matrix: torch.Tensor) -> torch.Tensor:
    """Return the upper triangle of a symmetric (n, n) matrix, row by row, as n (n + 1) / 2 values."""
    return torch.cat([row[start:] for start, row in enumerate(matrix)])


def unpack_triangle(packed: torch.Tensor, side: int) -> torch.Tensor:
    """Return the symmetric (n, n) matrix whose upper triangle `pack_triangle` gave."""
    matrix = packed.new_empty((side, side))
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
