"""Oracle for the tests: slow, literal float64 merges of whole state dicts in numpy.

It uses full SVDs, holds every model in memory and shares no code with hubmerge, which must agree with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

StateDict = Mapping[str, np.ndarray]

NULL = 1e-12
"""Largest share of s_1 up to which a singular value belongs to the null space."""

TIE = 1e-12


@dataclass(frozen=True)
class OracleStep:
    """One step of OPCM.

    Attributes:
        merged: θ_t.
        scale: λ_t.
        ranks: the rank of each weight matrix, from step 2 on.
    """

    merged: dict[str, np.ndarray]
    scale: float
    ranks: dict[str, int]


def distance(first: StateDict, second: StateDict) -> float:
    """Return the norm of the difference over all tensors together."""
    return float(np.sqrt(sum(np.sum((first[name] - second[name]) ** 2) for name in first)))


def rank_of(values: np.ndarray, alpha: float, rule: str = "paper") -> int:
    """Return the rank, one direction after the other; `values` are the non-null singular values, descending."""
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


def break_even(values: np.ndarray, projected: np.ndarray) -> int:
    """Return the rank of `alpha: auto`, by trying all ranks."""
    gains = [0.0]
    if not projected.any():
        return 0
    for rank in range(1, len(values) + 1):
        protected = np.sum(values[:rank] ** 2) / np.sum(values**2)
        gains.append(protected - np.sum(projected[:rank, :rank] ** 2) / np.sum(projected**2))
    return next(rank for rank, gain in enumerate(gains) if gain >= max(gains) - TIE)


def project(
    delta: np.ndarray, task_vector: np.ndarray, alpha: float | str, *, rule: str = "paper", diagonal: str = "remove"
) -> tuple[np.ndarray, int]:
    """Return C_t of one weight matrix and the rank, from the square U and V of the full SVD."""
    if not delta.any():
        return task_vector.copy(), 0
    u, s, vh = np.linalg.svd(delta, full_matrices=True)
    real = s > NULL * s[0]
    projected = u.T @ task_vector @ vh.T
    rank = break_even(s[real], projected) if isinstance(alpha, str) else rank_of(s[real], alpha, rule)
    if diagonal == "remove":
        for index in range(int(real.sum())):
            projected[index, index] = 0.0
    projected[:rank, :rank] = 0.0
    return u @ projected @ vh, rank


def opcm(
    base: StateDict,
    checkpoints: Sequence[StateDict],
    matrices: Collection[str],
    alpha: float | str = 0.5,
    *,
    rule: str = "paper",
    diagonal: str = "remove",
) -> list[OracleStep]:
    """Return all steps of the recursion of arXiv:2501.09522: θ_t = θ_0 + (λ_{t-1} Δ_{t-1} + C_t) / λ_t."""
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
    alpha: float | str = 0.5,
    *,
    rule: str = "paper",
    diagonal: str = "remove",
) -> OracleStep:
    """Return step number len(checkpoints), from θ and λ of the previous step."""
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
    """Return the mean of all checkpoints."""
    return {name: np.mean([c[name].astype(np.float64) for c in checkpoints], axis=0) for name in base}


def task_arithmetic(base: StateDict, checkpoints: Sequence[StateDict], scaling: float) -> dict[str, np.ndarray]:
    """Return θ_0 + c * (sum of the task vectors)."""
    return {
        name: start + scaling * sum(c[name].astype(np.float64) - start for c in checkpoints)
        for name, start in base.items()
    }


def adaptive_scale(base: StateDict, checkpoints: Sequence[StateDict]) -> dict[str, np.ndarray]:
    """Return θ_0 + the sum of the task vectors, scaled to their mean norm."""
    total = {name: sum(c[name].astype(np.float64) - start for c in checkpoints) for name, start in base.items()}
    length = np.sqrt(sum(np.sum(value**2) for value in total.values()))
    mean = np.mean([distance(c, base) for c in checkpoints])
    return {name: base[name] + total[name] * (mean / length) for name in base}


def magmax(base: StateDict, checkpoints: Sequence[StateDict], scaling: float) -> dict[str, np.ndarray]:
    """Return θ_0 + for each element the task vector of largest magnitude, the last one of equals."""
    merged = {}
    for name, start in base.items():
        vectors = np.stack([c[name].astype(np.float64) - start for c in reversed(checkpoints)])
        winners = np.argmax(np.abs(vectors), axis=0)
        merged[name] = start + scaling * np.take_along_axis(vectors, winners[None], axis=0)[0]
    return merged


def ties(base: StateDict, checkpoints: Sequence[StateDict], density: float, scaling: float) -> dict[str, np.ndarray]:
    """Return Δ_t = Δ_{t-1} + c TIES(Δ_{t-1}, τ_t), computed on one flat vector of the whole model."""
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
    first, second = (np.where(signs > 0, np.maximum(vector, 0.0), np.minimum(vector, 0.0)) for vector in trimmed)
    merged: np.ndarray = first + second
    return merged


def linear(base: StateDict, checkpoints: Sequence[StateDict], weights: Sequence[float]) -> dict[str, np.ndarray]:
    """Return the result of mergekit's linear with normalize: the weighted mean of all checkpoints."""
    return {
        name: np.average([c[name].astype(np.float64) for c in checkpoints], axis=0, weights=weights) for name in base
    }


def mergekit_task_arithmetic(
    base: StateDict, checkpoints: Sequence[StateDict], weights: Sequence[float], *, normalize: bool, factor: float
) -> dict[str, np.ndarray]:
    """Return the result of mergekit's task_arithmetic: the weighted sum or mean of all task vectors."""
    merged = {}
    for name, start in base.items():
        total = sum(w * (c[name].astype(np.float64) - start) for w, c in zip(weights, checkpoints, strict=True))
        merged[name] = start + factor * (total / sum(weights) if normalize else total)
    return merged


def mergekit_ties(
    base: StateDict,
    checkpoints: Sequence[StateDict],
    weights: Sequence[float],
    density: float,
    *,
    normalize: bool = True,
    factor: float = 1.0,
) -> dict[str, np.ndarray]:
    """Return the result of mergekit's ties: each task vector trimmed, one sign elected for each element."""
    merged = {}
    for name, start in base.items():
        trimmed = []
        for checkpoint in checkpoints:
            vector = (checkpoint[name].astype(np.float64) - start).ravel()
            largest = np.argsort(-np.abs(vector), kind="stable")[: max(1, int(density * vector.size))]
            kept = np.zeros_like(vector)
            kept[largest] = vector[largest]
            trimmed.append(kept)
        terms = np.array(weights)[:, None] * np.stack(trimmed)
        sign = np.where(terms.sum(axis=0) >= 0, 1.0, -1.0)
        agreeing = np.sign(terms) == sign
        total = (terms * agreeing).sum(axis=0)
        if normalize:
            divisor = (np.array(weights)[:, None] * agreeing).sum(axis=0)
            total = total / np.where(divisor == 0.0, 1.0, divisor)
        merged[name] = start + factor * total.reshape(start.shape)
    return merged
