"""Rules for the number of leading singular directions of the accumulated delta that are protected."""

from __future__ import annotations

from typing import Literal

from hubmerge.support.lazy import torch

RankRule = Literal["paper", "fusion_bench"]

TIE = 1e-12
"""Shares this close to `alpha` count as equal to it, so that the rank does not depend on the last digit."""


def protected_rank(singular_values: torch.Tensor, alpha: float, rule: RankRule = "paper") -> int:
    """Return the number r of leading directions whose share of the sum of all singular values reaches `alpha`.

    Args:
        singular_values: (k,) float64, descending, all positive; r is 0 for k = 0.
        alpha: the share to reach, from 0 to 1.
        rule: "paper" is the smallest r whose share is >= alpha (arXiv:2501.09522, Section 4): 0 for alpha 0, k for 1.
            "fusion_bench" is the number of shares <= alpha, or 0 if no share exceeds alpha, as in the authors' code:
            one less than the paper's r, and 0 for alpha 1.

    >>> protected_rank(torch.tensor([6.0, 3.0, 1.0]), 0.7)
    2
    >>> protected_rank(torch.tensor([6.0, 3.0, 1.0]), 0.7, "fusion_bench")
    1
    """
    count = singular_values.numel()
    if count == 0:
        return 0
    sums = torch.cumsum(singular_values, 0)
    total = float(sums[-1])
    if rule == "paper":
        if alpha <= 0.0:
            return 0
        return int((sums < (alpha - TIE) * total).sum()) + 1
    below = int((sums <= (alpha + TIE) * total).sum())
    return below if below < count else 0


def break_even_rank(singular_values: torch.Tensor, coefficients: torch.Tensor, length: float) -> int:
    """Return the rank with the best balance of protection and loss.

    Protecting r directions keeps the share E(r) = Σ_{i<=r} s_i^2 / Σ s_i^2 of the accumulated delta's energy free of
    the task vector τ, and removes the share R(r) = || leading r x r block of P ||^2 / || τ ||^2 of the task vector's
    energy. The rank is the smallest r with the largest E(r) - R(r), or 0 if none is positive.

    Args:
        singular_values: (k,) float64, descending, of all directions of the accumulated delta.
        coefficients: P = U^T τ V, (j, j) float64 with j <= k.
        length: Frobenius norm of τ.
    """
    count = coefficients.shape[0]
    if count == 0 or length == 0.0:
        return 0
    squares = singular_values**2
    protected = torch.cumsum(squares, 0)[:count] / torch.sum(squares)
    removed = (coefficients / length).square_().cumsum_(0).cumsum_(1).diagonal()
    gain = protected - removed
    best = float(gain.max())
    return 0 if best <= TIE else int(torch.nonzero(gain >= best - TIE)[0]) + 1


def rank_margin(singular_values: torch.Tensor, alpha: float) -> float:
    """Return the distance between `alpha` and the nearest share, as a fraction of the sum of the singular values."""
    sums = torch.cumsum(singular_values, 0)
    return float((sums / sums[-1] - alpha).abs().min())
