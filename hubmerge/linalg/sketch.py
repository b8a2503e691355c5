"""Sketches of tensors: about a thousand numbers from which the cosine of two tensors can be estimated later.

Each element gets a seeded random sign, then every SIZE-th element is summed. This linear map preserves inner products
on average (arXiv:1504.06785, Section 3, with residues as hashes). The standard error of a cosine is at most about
sqrt(2 / SIZE) = 0.04 for one tensor, and less for many tensors together. A tensor of SIZE elements or fewer is its own
sketch: its cosines are exact.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence

from hubmerge.support.lazy import np, torch

SIZE = 1021
"""Number of sums in a sketch; a prime, so that rows and columns of a matrix spread over all sums evenly."""

PIECE = 128 * SIZE
"""Number of elements in a piece: whole rows of SIZE, 1 MiB of float64.

A piece and its results fit in the CPU cache, and pieces are large enough that threads hardly wait for the interpreter.
"""


class Signs:
    """Random signs for a tensor's elements, piece after piece.

    Args:
        name: the seed.
        device: the device of the signs.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self._generator = np.random.PCG64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
        self._device = device
        self._signs = torch.empty(0, dtype=torch.float64, device=device)
        self._signed = torch.empty(0, dtype=torch.float64, device=device)

    def next(self, count: int) -> None:
        """Advance to the next `count` elements: PIECE of them, or fewer at the end."""
        words = self._generator.random_raw(-(-count // 64)).astype("<u8")
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")[:count].view(np.int8)
        if self._signs.numel() < count:
            self._signs = torch.empty(count, dtype=torch.float64, device=self._device)
            self._signed = torch.empty(-(-count // SIZE) * SIZE, dtype=torch.float64, device=self._device)
        self._signs[:count].copy_(torch.from_numpy(bits * 2 - 1))

    def applied(self, piece: torch.Tensor) -> torch.Tensor:
        """Return the current elements times their signs, (rows, SIZE), padded with zeros; calls share the memory."""
        count, rows = piece.numel(), -(-piece.numel() // SIZE)
        signed = self._signed[: rows * SIZE]
        torch.mul(self._signs[:count], piece, out=signed[:count])
        signed[count:].zero_()
        return signed.view(rows, SIZE)


class Sketcher:
    """Sketch of a float64 tensor that is read in pieces.

    Args:
        elements: the number of elements; a tensor of SIZE elements or fewer is its own sketch, without signs.
        device: the device of the pieces.
    """

    def __init__(self, elements: int, device: torch.device) -> None:
        self._exact = elements <= SIZE
        self._sums = torch.zeros(SIZE, dtype=torch.float64, device=device)

    def add(self, piece: torch.Tensor, signs: Signs) -> None:
        """Add the next elements, flat: PIECE of them, or fewer at the end. `signs` has advanced to them."""
        if self._exact:
            self._sums[: piece.numel()] = piece
        else:
            self._sums += signs.applied(piece).sum(dim=0)

    def sketch(self) -> torch.Tensor:
        """Return the sketch, (SIZE,) float32 on the CPU; sums beyond float32 become infinite."""
        return self._sums.cpu().to(torch.float32)


def sketch(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return the sketch of a whole tensor.

    Args:
        name: the seed of the signs; sketches can be compared only if they have one name.
        tensor: float64, any shape.

    Returns:
        (SIZE,) float32 on the CPU.
    """
    sketcher, signs = Sketcher(tensor.numel(), tensor.device), Signs(name, tensor.device)
    for piece in tensor.reshape(-1).split(PIECE):
        signs.next(piece.numel())
        sketcher.add(piece, signs)
    return sketcher.sketch()


def join_sketches(sketches: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
    """Return one sketch of all tensors together, as if they were one tensor.

    Args:
        sketches: the sketches, (tensors, SIZE).
        names: the names of the tensors; joined sketches can be compared only if they have the same names.

    Returns:
        (SIZE,) float32.
    """
    signs, places = _joining(tuple(names))
    return (sketches.to(torch.float64) * signs).gather(1, places).sum(dim=0).to(torch.float32)


@functools.lru_cache(maxsize=4)
def _joining(names: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random signs for each sum of each sketch, and a rotation of each sketch as the places of its sums.

    Small tensors are their own sketches, without signs and in the first sums alone.
    """
    rows, places = [], []
    for name in names:
        signs = Signs(f"joined {name}", torch.device("cpu"))
        signs.next(SIZE)
        rows.append(signs.applied(torch.ones(SIZE, dtype=torch.float64)).reshape(-1).clone())
        first = int.from_bytes(hashlib.sha256(f"place {name}".encode()).digest()[:8], "little") % SIZE
        places.append((torch.arange(SIZE) + first) % SIZE)
    return torch.stack(rows), torch.stack(places)


def sketch_cosine(first: torch.Tensor, second: torch.Tensor, first_norm: float, second_norm: float) -> float | None:
    """Return the estimated cosine of two tensors, or of two lists of tensors, from their sketches and exact lengths.

    Args:
        first: (SIZE,) for one tensor, (tensors, SIZE) for a list.
        second: the shape of `first`.
        first_norm: Frobenius norm of the first tensor or list.
        second_norm: Frobenius norm of the second one.

    Returns:
        The cosine; None if a length is zero or a sketch overflowed.
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
    """Return `sketch_cosine` for each group of tensors.

    Args:
        first: sketches of the first list, (tensors, SIZE).
        second: sketches of the second list, (tensors, SIZE).
        first_norms: Frobenius norms of the first list's tensors.
        second_norms: Frobenius norms of the second list's tensors.
        groups: indices of the tensors in each group.
    """
    found = []
    for rows in groups:
        lengths = (math.hypot(*(norms[row] for row in rows)) for norms in (first_norms, second_norms))
        found.append(sketch_cosine(first[list(rows)], second[list(rows)], *lengths))
    return found
