"""Sketches of tensors: a thousand numbers from which the cosine of two tensors can be estimated later.

A seeded random sign for every element, then sums over every SIZE-th element: a linear map that keeps inner products
on average (arXiv:1504.06785, Section 3, with residues for hashes). The standard error of a cosine is at most about
sqrt(2 / SIZE) = 0.04 for one tensor, and less over many tensors together. Tensors of SIZE elements or fewer are their
own sketch, so theirs is exact.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch

SIZE = 1021
"""Prime, so that the rows and columns of a matrix spread over all sums alike."""

_ROWS_AT_ONCE = 64


def sketch(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The sketch of a float64 tensor, (SIZE,) float32 on the CPU; `name` seeds the signs.

    Scaled by no more than float32 can hold: values beyond it become infinite and their cosines unknown.
    """
    values = tensor.reshape(-1)
    if values.numel() <= SIZE:
        sums = torch.zeros(SIZE, dtype=torch.float64)
        sums[: values.numel()] = values.cpu()
        return sums.to(torch.float32)
    sums = torch.zeros(SIZE, dtype=torch.float64, device=values.device)
    generator = np.random.PCG64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
    step = SIZE * _ROWS_AT_ONCE
    signs = torch.empty(step, dtype=torch.float64, device=values.device)
    for begin in range(0, values.numel(), step):
        part = values[begin : begin + step]
        count, rows = part.numel(), -(-part.numel() // SIZE)
        words = generator.random_raw(-(-count // 64)).astype("<u8")
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")[:count].view(np.int8)
        signed = signs[: rows * SIZE]
        signed[:count].copy_(torch.from_numpy(bits * 2 - 1)).mul_(part)
        signed[count:].zero_()
        sums += signed.view(rows, SIZE).sum(dim=0)
    return sums.cpu().to(torch.float32)


def sketch_cosine(first: torch.Tensor, second: torch.Tensor, first_norm: float, second_norm: float) -> float | None:
    """Estimated cosine of two tensors, or of two lists of tensors, from their sketches and their exact lengths.

    `first` and `second` are (SIZE,) or (tensors, SIZE). None if one of the lengths is zero or the sketches overflowed.
    """
    if first_norm == 0.0 or second_norm == 0.0:
        return None
    product = float(torch.sum(first.to(torch.float64) * second.to(torch.float64)))
    value = product / first_norm / second_norm
    return max(-1.0, min(1.0, value)) if math.isfinite(value) else None


def group_cosines(
    first: torch.Tensor,
    second: torch.Tensor,
    first_norms: Sequence[float],
    second_norms: Sequence[float],
    groups: Sequence[Sequence[int]],
) -> list[float | None]:
    """`sketch_cosine` of the rows of every group together."""
    found = []
    for rows in groups:
        lengths = (math.hypot(*(norms[row] for row in rows)) for norms in (first_norms, second_norms))
        found.append(sketch_cosine(first[list(rows)], second[list(rows)], *lengths))
    return found
