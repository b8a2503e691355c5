"""Weights of several experts in one tensor of (experts, m, n), absorbed one matrix at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from hubmerge.linalg import frobenius_norm, total_norm
from hubmerge.methods import Absorbed


@dataclass(frozen=True)
class AbsorbedExperts(Absorbed):
    """One tensor of (experts, m, n) after a step.

    `ranks` are those of the experts, empty if nothing is projected; `removed_share` is over all experts together.
    """

    ranks: tuple[int, ...] = ()


def absorb_experts(
    absorb: Callable[[torch.Tensor, torch.Tensor, Mapping[str, torch.Tensor]], Absorbed],
    accumulated: torch.Tensor,
    task_vector: torch.Tensor,
    parts: Mapping[str, torch.Tensor],
) -> AbsorbedExperts:
    """Call `absorb(accumulated, task_vector, parts)` for the matrix of each expert.

    The tensors are (experts, m, n); the state parts have a leading dimension for the experts.
    """
    result = torch.empty_like(task_vector)
    new_parts = {name: torch.empty_like(values) for name, values in parts.items()}
    ranks: list[int] = []
    removed: list[float] = []
    for number, (before, change) in enumerate(zip(accumulated, task_vector, strict=True)):
        absorbed = absorb(before, change, {name: values[number] for name, values in parts.items()})
        result[number] = absorbed.accumulated
        for name, values in absorbed.parts.items():
            new_parts[name][number] = values
        norm = frobenius_norm(change)
        removed.append(norm * absorbed.removed_share**0.5)
        if absorbed.rank is not None:
            ranks.append(absorbed.rank)
    whole = frobenius_norm(task_vector)
    return AbsorbedExperts(
        result,
        new_parts,
        removed_share=min(1.0, (total_norm(removed) / whole) ** 2) if whole > 0.0 else 0.0,
        ranks=tuple(ranks),
    )
