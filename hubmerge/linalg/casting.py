"""Rounding of float64 tensors to narrower dtypes in one step."""

from __future__ import annotations

from hubmerge.support.lazy import torch

# Halfway between the largest number, 448, and the next one if there were one. torch turns larger values into 448.
_LIMIT_OF_E4M3FN = 464.0


def cast_once(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor in another dtype, each element rounded once: to the nearest, ties to even.

    torch rounds float64 to float32 first and then to a narrower dtype. The second rounding goes wrong where the first
    one lands on a tie. Here the float32 value is rounded to odd instead, which is never a tie (Boldo and Melquiond,
    "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008).

    Args:
        tensor: any shape; float64 is rounded as described, other dtypes as torch does.
        dtype: the dtype to return. Values beyond its range become infinite, or NaN if it has no infinity.
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
