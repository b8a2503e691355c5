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

from hubmerge.support.lazy import torch

SIZE = 1021
"""Prime, so that the rows and columns of a matrix spread over all sums alike."""

PIECE = 128 * SIZE
"""How many elements are looked at together, whole rows of SIZE: 1 MiB of float64, few enough to stay in the cache with
what is made of them, and so many that threads hardly ever wait for the interpreter, which every look at a piece needs.
"""


class Signs:
    """The seeded signs of a tensor's elements, piece after piece; `name` is the seed."""

    def __init__(self, name: str, device: torch.device) -> None:
        self._generator = np.random.PCG64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
        self._device = device
        self._signs = torch.empty(0, dtype=torch.float64, device=device)
        self._signed = torch.empty(0, dtype=torch.float64, device=device)

    def next(self, count: int) -> None:
        """Go on to those of the next elements: PIECE of them, fewer only at the end."""
        words = self._generator.random_raw(-(-count // 64)).astype("<u8")
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")[:count].view(np.int8)
        if self._signs.numel() < count:
            self._signs = torch.empty(count, dtype=torch.float64, device=self._device)
            self._signed = torch.empty(-(-count // SIZE) * SIZE, dtype=torch.float64, device=self._device)
        self._signs[:count].copy_(torch.from_numpy(bits * 2 - 1))

    def applied(self, piece: torch.Tensor) -> torch.Tensor:
        """Those elements with their signs, (rows, SIZE), zeros after the last one; in the same memory again."""
        count, rows = piece.numel(), -(-piece.numel() // SIZE)
        signed = self._signed[: rows * SIZE]
        torch.mul(self._signs[:count], piece, out=signed[:count])
        signed[count:].zero_()
        return signed.view(rows, SIZE)


class Sketcher:
    """Makes the sketch of a float64 tensor that comes in pieces. Of one of SIZE elements or fewer the signs are not
    looked at."""

    def __init__(self, elements: int, device: torch.device) -> None:
        self._itself = elements <= SIZE
        self._sums = torch.zeros(SIZE, dtype=torch.float64, device=device)

    def add(self, piece: torch.Tensor, signs: Signs) -> None:
        """Take in the next elements, flat, which `signs` has gone on to: PIECE of them, fewer only at the end."""
        if self._itself:
            self._sums[: piece.numel()] = piece
        else:
            self._sums += signs.applied(piece).sum(dim=0)

    def sketch(self) -> torch.Tensor:
        """The sketch, (SIZE,) float32 on the CPU.

        Scaled by no more than float32 can hold: values beyond it become infinite and their cosines unknown.
        """
        return self._sums.cpu().to(torch.float32)


def sketch(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The sketch of a whole tensor: see `Sketcher`."""
    sketcher, signs = Sketcher(tensor.numel(), tensor.device), Signs(name, tensor.device)
    for piece in tensor.reshape(-1).split(PIECE):
        signs.next(piece.numel())
        sketcher.add(piece, signs)
    return sketcher.sketch()


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
