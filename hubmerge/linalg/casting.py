"""Rounding float64 tensors to narrower dtypes, once."""

from __future__ import annotations

from hubmerge.support.lazy import torch

# Between the largest number, 448, and what would be the next: torch makes 448 of anything beyond, even of infinity.
_LIMIT_OF_E4M3FN = 464.0


def cast_once(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`tensor` in `dtype`, each element rounded to the nearest, of two equally near ones to the even.

    torch rounds float64 to float32 on the way to a narrower dtype, and the second rounding can go astray where the
    first one landed on a tie. Here the way station is rounded to odd, which no later rounding mistakes for a tie.
    What is too large for `dtype` becomes infinite, or NaN where it knows no infinity.
    """
    narrow = (torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
    if tensor.dtype != torch.float64 or dtype not in narrow:
        return tensor.to(dtype)
    nearest = tensor.to(torch.float32)
    difference = tensor - nearest
    even = (nearest.view(torch.int32) & 1) == 0
    towards = torch.copysign(torch.full_like(nearest, torch.inf), difference.to(torch.float32))
    odd = torch.where(even & (difference != 0) & torch.isfinite(nearest), torch.nextafter(nearest, towards), nearest)
    if dtype == torch.float8_e4m3fn:
        odd = odd.masked_fill(tensor.abs() > _LIMIT_OF_E4M3FN, torch.nan)
    return odd.to(dtype)
