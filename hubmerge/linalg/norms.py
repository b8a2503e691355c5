"""Norms and cosines that do not overflow and do not depend on the order of the tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from hubmerge.support.lazy import torch

_SAFE_LOW, _SAFE_HIGH = 1e-100, 1e100
_ORDINARY_LOW = 1e5 * _SAFE_LOW
"""A tensor with this norm has an element above _SAFE_LOW, unless it has more than 1e10 elements."""


def power_of_two_near(tensor: torch.Tensor) -> float:
    """Return the power of two near the largest magnitude if that is extreme, else 1.0.

    Division by it changes no digit of any element and keeps the squares of the elements inside float64.

    Args:
        tensor: float64, any shape.
    """
    if tensor.numel() == 0 or _ordinary_length(tensor) is not None:
        return 1.0
    low, high = torch.aminmax(tensor)
    largest = max(-float(low), float(high))
    if largest == 0.0 or _SAFE_LOW <= largest <= _SAFE_HIGH:
        return 1.0
    return math.ldexp(1.0, max(math.frexp(largest)[1], -1000))


def safe_scale(tensor: torch.Tensor, length: float) -> float:
    """Return `power_of_two_near` of a tensor whose `frobenius_norm` is known, mostly without reading the tensor."""
    return 1.0 if _ORDINARY_LOW <= length <= _SAFE_HIGH else power_of_two_near(tensor)


def difference(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return `one - other`, with 0 for equal elements also where they are infinite."""
    return torch.where(one == other, 0.0, one - other)


def frobenius_norm(tensor: torch.Tensor) -> float:
    """Return the root of the sum of squares of all elements of a float64 tensor, for any finite elements."""
    length = _ordinary_length(tensor)
    if length is not None:
        return length
    scale = power_of_two_near(tensor)
    scaled = tensor if scale == 1.0 else tensor / scale
    return float(torch.linalg.vector_norm(scaled)) * scale


def _ordinary_length(tensor: torch.Tensor) -> float | None:
    """Return the norm if no square comes near the limits of float64, else None; the tensor is read once."""
    length = float(torch.linalg.vector_norm(tensor))
    return length if _ORDINARY_LOW <= length <= _SAFE_HIGH else None


def total_norm(norms: Iterable[float]) -> float:
    """Return the norm of several tensors together, from the norm of each.

    The squares are summed exactly and rounded once, so the order of the tensors does not matter.
    """
    values = list(norms)
    largest = max(values, default=0.0)
    if largest == 0.0:
        return 0.0
    scale = math.ldexp(1.0, math.frexp(largest)[1])
    return math.sqrt(math.fsum((value / scale) ** 2 for value in values)) * scale


def cosine(first: torch.Tensor, second: torch.Tensor, lengths: tuple[float, float] | None = None) -> float | None:
    """Return the cosine of the angle between two tensors, None if one of them is zero.

    Args:
        first: float64, any shape.
        second: float64, the shape of `first`.
        lengths: the `frobenius_norm` of both, if known.
    """
    lengths = (frobenius_norm(first), frobenius_norm(second)) if lengths is None else lengths
    if 0.0 in lengths:
        return None
    pair = (first, second)
    scales = [safe_scale(tensor, length) for length, tensor in zip(lengths, pair, strict=True)]
    scaled = [tensor if scale == 1.0 else tensor / scale for scale, tensor in zip(scales, pair, strict=True)]
    product = float(torch.dot(scaled[0].reshape(-1), scaled[1].reshape(-1)))
    value = product / (lengths[0] / scales[0]) / (lengths[1] / scales[1])
    return max(-1.0, min(1.0, value))


def cosine_of_parts(cosines: Sequence[float | None], first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return the cosine of two vectors from the cosines and lengths of their parts, None if one vector is zero.

    Args:
        cosines: the cosine of each pair of parts; None where one part is zero.
        first: the lengths of the first vector's parts.
        second: the lengths of the second vector's parts.
    """
    whole = total_norm(first), total_norm(second)
    if 0.0 in whole:
        return None
    return math.fsum(
        cosine * (one / whole[0]) * (other / whole[1])
        for cosine, one, other in zip(cosines, first, second, strict=True)
        if cosine is not None
    )
