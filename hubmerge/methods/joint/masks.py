"""Masks of elements, as passes over memory that are fast on a CPU.

torch converts each element of a mask when a tensor is multiplied by it, and `torch.where` is slower still. NumPy
compares several times as fast.
"""

from __future__ import annotations

from hubmerge.support.lazy import np, torch


def greater(values: torch.Tensor, number: float) -> torch.Tensor:
    """Return the mask of the values above a number, which is rounded to their dtype first."""
    return torch.from_numpy(np.greater(values.numpy(), number)) if _is_simple(values) else values > number


def at_least(values: torch.Tensor, number: float) -> torch.Tensor:
    """Return the mask of the values that are not below a number, which is rounded to their dtype first."""
    return torch.from_numpy(np.greater_equal(values.numpy(), number)) if _is_simple(values) else values >= number


def counted(mask: torch.Tensor) -> int:
    """Return how many elements are True."""
    return int(np.count_nonzero(mask.numpy())) if _is_simple(mask) else int(torch.count_nonzero(mask))


def as_numbers(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return 1 for True and 0 for False, in the dtype of another tensor."""
    return mask.view(torch.uint8).to(like.dtype)


def choose(mask: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the values of one tensor where the mask is True and those of another elsewhere, bit by bit."""
    if one.device.type != "cpu":
        return torch.where(mask, one, other)
    integers = torch.int64 if one.dtype == torch.float64 else torch.int32
    kept = other.contiguous().view(integers)
    bits = one.contiguous().view(integers) ^ kept
    bits &= mask.view(torch.uint8).to(integers).neg_()
    return bits.bitwise_xor_(kept).view(one.dtype)


def _is_simple(values: torch.Tensor) -> bool:
    """Return True for tensors that NumPy can read in place."""
    return values.device.type == "cpu" and values.dim() > 0
