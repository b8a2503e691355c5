"""How many leading singular directions of the accumulated delta are protected."""

from __future__ import annotations

from typing import Literal

from hubmerge.support.lazy import torch

RankRule = Literal["paper", "fusion_bench"]

TIE = 1e-12
"""Shares this close to `alpha` count as equal to it, so that the rank does not hang on the last digit."""


def protected_rank(singular_values: torch.Tensor, alpha: float, rule: RankRule = "paper") -> int:
    """Number r of leading directions whose share of the sum of all singular values reaches `alpha`.

    `singular_values` is (k,) float64, descending, all positive; without any, r is 0.
    `paper`: the smallest r whose share is >= alpha (arXiv:2501.09522, Section 4); 0 for alpha 0, all for 1.
    `fusion_bench`: the number of shares <= alpha, and 0 if no share exceeds alpha, as the authors' code has it:
    one less than the paper's r, and no protection at all for alpha 1.

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


def break_even_rank(singular_values: torch.Tensor, turned: torch.Tensor, length: float) -> int:
    """The rank that protects most for what it costs, without any parameter.

    Protecting r directions keeps the share E(r) = Σ_{i<=r} s_i^2 / Σ s_i^2 of the accumulated delta's energy free
    of the task vector, and takes the share R(r) = || leading r x r block of P ||^2 / || τ ||^2 of the task vector's
    energy away. The rank is the r with the largest E(r) - R(r), the smallest of equals, 0 if none is positive.

    `singular_values` are (k,), descending, those of all directions; `turned` is P = U^T τ V, (j, j) with j <= k, and
    `length` that of τ.
    """
    count = turned.shape[0]
    if count == 0 or length == 0.0:
        return 0
    squares = singular_values**2
    protected = torch.cumsum(squares, 0)[:count] / torch.sum(squares)
    removed = (turned / length).square_().cumsum_(0).cumsum_(1).diagonal()
    gain = protected - removed
    best = float(gain.max())
    return 0 if best <= TIE else int(torch.nonzero(gain >= best - TIE)[0]) + 1


def rank_margin(singular_values: torch.Tensor, alpha: float) -> float:
    """How far the share nearest to `alpha` is from it, as a fraction of the sum of the singular values."""
    sums = torch.cumsum(singular_values, 0)
    return float((sums / sums[-1] - alpha).abs().min())
