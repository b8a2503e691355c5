"""Slow, literal float64 merges of whole state dicts in numpy: full SVDs, every model at once, no shortcuts.

What the fast path must agree with. Nothing here is shared with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

StateDict = Mapping[str, np.ndarray]

NULL = 1e-12
"""Singular values up to this share of the largest belong to the null space."""

TIE = 1e-12


@dataclass(frozen=True)
class OracleStep:
    """θ_t, and λ_t of the recursion that led there; ranks of the weight matrices from step 2 on."""

    merged: dict[str, np.ndarray]
    scale: float
    ranks: dict[str, int]


def distance(first: StateDict, second: StateDict) -> float:
    """Norm of the difference over all tensors together."""
    return float(np.sqrt(sum(np.sum((first[name] - second[name]) ** 2) for name in first)))


def rank_of(values: np.ndarray, alpha: float, rule: str = "paper") -> int:
    """The rank rule, told step by step: `values` are the singular values, descending, null ones left out."""
    total = values.sum()
    if rule == "paper":
        rank, reached = 0, 0.0
        while reached < alpha * total - TIE * total:
            reached += values[rank]
            rank += 1
        return rank
    reached = 0.0
    for index, value in enumerate(values):
        reached += value
        if reached > (alpha + TIE) * total:
            return index
    return 0


def project(
    delta: np.ndarray, task_vector: np.ndarray, alpha: float, *, rule: str = "paper", diagonal: str = "remove"
) -> tuple[np.ndarray, int]:
    """C_t of one weight matrix and the rank, from the square U and V of the full SVD."""
    if not delta.any():
        return task_vector.copy(), 0
    u, s, vh = np.linalg.svd(delta, full_matrices=True)
    real = s > NULL * s[0]
    rank = rank_of(s[real], alpha, rule)
    projected = u.T @ task_vector @ vh.T
    if diagonal == "remove":
        for index in range(int(real.sum())):
            projected[index, index] = 0.0
    projected[:rank, :rank] = 0.0
    return u @ projected @ vh, rank


def opcm(
    base: StateDict,
    checkpoints: Sequence[StateDict],
    matrices: Collection[str],
    alpha: float = 0.5,
    *,
    rule: str = "paper",
    diagonal: str = "remove",
) -> list[OracleStep]:
    """The recursion of the paper: θ_t = θ_0 + (λ_{t-1} Δ_{t-1} + C_t) / λ_t."""
    merged = {name: value.astype(np.float64) for name, value in checkpoints[0].items()}
    steps = [OracleStep(merged, 1.0, {})]
    for step in range(2, len(checkpoints) + 1):
        steps.append(opcm_step(base, checkpoints[:step], steps[-1], matrices, alpha, rule=rule, diagonal=diagonal))
    return steps


def opcm_step(
    base: StateDict,
    checkpoints: Sequence[StateDict],
    previous: OracleStep,
    matrices: Collection[str],
    alpha: float = 0.5,
    *,
    rule: str = "paper",
    diagonal: str = "remove",
) -> OracleStep:
    """Step number len(checkpoints), from θ and λ of the step before."""
    unscaled, ranks = {}, {}
    for name, start in base.items():
        start = start.astype(np.float64)
        delta = previous.merged[name] - start
        task_vector = checkpoints[-1][name].astype(np.float64) - start
        if name in matrices:
            change, ranks[name] = project(delta, task_vector, alpha, rule=rule, diagonal=diagonal)
        else:
            change = task_vector
        unscaled[name] = previous.scale * delta + change
    zero = {name: np.zeros_like(value) for name, value in unscaled.items()}
    length = distance(unscaled, zero)
    mean = np.mean([distance({n: v.astype(np.float64) for n, v in c.items()}, base) for c in checkpoints])
    scale = float(length / mean) if length > 0.0 else 1.0
    return OracleStep({name: base[name] + unscaled[name] / scale for name in base}, scale, ranks)


def weight_average(base: StateDict, checkpoints: Sequence[StateDict]) -> dict[str, np.ndarray]:
    """The mean of all checkpoints."""
    return {name: np.mean([c[name].astype(np.float64) for c in checkpoints], axis=0) for name in base}


def task_arithmetic(base: StateDict, checkpoints: Sequence[StateDict], scaling: float) -> dict[str, np.ndarray]:
    """θ_0 + c * (sum of the task vectors)."""
    return {
        name: start + scaling * sum(c[name].astype(np.float64) - start for c in checkpoints)
        for name, start in base.items()
    }


def adaptive_scale(base: StateDict, checkpoints: Sequence[StateDict]) -> dict[str, np.ndarray]:
    """The sum of the task vectors, brought to their mean length."""
    total = {name: sum(c[name].astype(np.float64) - start for c in checkpoints) for name, start in base.items()}
    length = np.sqrt(sum(np.sum(value**2) for value in total.values()))
    mean = np.mean([distance(c, base) for c in checkpoints])
    return {name: base[name] + total[name] * (mean / length) for name in base}


def magmax(base: StateDict, checkpoints: Sequence[StateDict], scaling: float) -> dict[str, np.ndarray]:
    """Element by element the task vector of largest magnitude, the last of equals; all of them side by side."""
    merged = {}
    for name, start in base.items():
        vectors = np.stack([c[name].astype(np.float64) - start for c in reversed(checkpoints)])
        winners = np.argmax(np.abs(vectors), axis=0)
        merged[name] = start + scaling * np.take_along_axis(vectors, winners[None], axis=0)[0]
    return merged


def ties(base: StateDict, checkpoints: Sequence[StateDict], density: float, scaling: float) -> dict[str, np.ndarray]:
    """Δ_t = Δ_{t-1} + c TIES(Δ_{t-1}, τ_t) on one flat vector of the whole model."""
    names = sorted(base)
    start = np.concatenate([base[name].astype(np.float64).ravel() for name in names])
    delta = np.zeros_like(start)
    for step, checkpoint in enumerate(checkpoints, start=1):
        task_vector = np.concatenate([checkpoint[name].astype(np.float64).ravel() for name in names]) - start
        delta = delta + scaling * (task_vector if step == 1 else _ties(delta, task_vector, density))
    merged, place = {}, 0
    for name in names:
        size = base[name].size
        merged[name] = (start + delta)[place : place + size].reshape(base[name].shape)
        place += size
    return merged


def _ties(first: np.ndarray, second: np.ndarray, density: float) -> np.ndarray:
    trimmed = []
    for vector in (first, second):
        place = max(1, vector.size - int(vector.size * density))
        threshold = np.sort(np.abs(vector))[place - 1]
        trimmed.append(np.where(np.abs(vector) >= threshold, vector, 0.0))
    signs = np.sign(trimmed[0] + trimmed[1])
    majority = np.sign(signs.sum())
    signs[signs == 0] = majority
    return sum(np.where(signs > 0, np.maximum(vector, 0.0), np.minimum(vector, 0.0)) for vector in trimmed)
