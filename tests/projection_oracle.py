"""Oracle of the methods that filter task vectors by the directions of earlier ones, as literal as `tests/oracle.py`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from tests.oracle import NULL, StateDict


def null_space(
    base: StateDict, checkpoints: Sequence[StateDict], matrices: Collection[str], rank: int, *, others: str = "keep"
) -> dict[str, np.ndarray]:
    """Return the result of the null-space filter, with the square projector I - V V^T and without a scale."""
    total = {name: np.zeros_like(start, dtype=np.float64) for name, start in base.items()}
    for checkpoint in checkpoints:
        for name, start in base.items():
            vector = checkpoint[name].astype(np.float64) - start
            if name in matrices:
                total[name] = total[name] + vector @ _filter(total[name], rank)
            elif others == "sum":
                total[name] = total[name] + vector
    return {name: base[name] + total[name] for name in base}


def _leading(matrix: np.ndarray, rank: int) -> np.ndarray:
    """Return the leading right singular vectors as columns."""
    _, values, right = np.linalg.svd(matrix)
    kept = min(rank, int((values > NULL * values[0]).sum())) if values[0] > 0 else 0
    leading: np.ndarray = right[:kept].T
    return leading


def _filter(delta: np.ndarray, rank: int) -> np.ndarray:
    directions = _leading(delta, rank)
    projector: np.ndarray = np.eye(delta.shape[1]) - directions @ directions.T
    return projector


def nufilt(
    base: StateDict,
    checkpoints: Sequence[StateDict],
    matrices: Collection[str],
    start_of_a: Mapping[str, np.ndarray],
    *,
    rank: int,
    task_rank: int,
    steps: int,
    rate: float,
) -> dict[str, np.ndarray]:
    """Return the result of NUFILT, with the gradient of || X - τ B A Y ||^2 computed term by term."""
    total = {name: np.zeros_like(start, dtype=np.float64) for name, start in base.items()}
    for checkpoint in checkpoints:
        for name in matrices:
            delta, vector = total[name], checkpoint[name].astype(np.float64) - base[name]
            if not delta.any():
                total[name] = delta + vector
                continue
            keep = _filter(delta, rank)
            a, b = start_of_a[name].copy(), np.zeros_like(start_of_a[name].T)
            terms = [(vector, _leading(vector, task_rank)), (delta, _leading(delta, rank))]
            moments = [np.zeros_like(a), np.zeros_like(a), np.zeros_like(b), np.zeros_like(b)]
            for count in range(1, steps + 1):
                grad_a, grad_b = np.zeros_like(a), np.zeros_like(b)
                for target, directions in terms:
                    left_over = (target - (delta + vector @ (keep + b @ a))) @ directions
                    grad_a += -2 * b.T @ vector.T @ left_over @ directions.T
                    grad_b += -2 * vector.T @ left_over @ directions.T @ a.T
                a = a - _adam(grad_a, moments, 0, count, rate)
                b = b - _adam(grad_b, moments, 2, count, rate)
            total[name] = delta + vector @ (keep + b @ a)
    return {name: base[name] + total[name] for name in base}


def _adam(gradient: np.ndarray, moments: list[np.ndarray], place: int, count: int, rate: float) -> np.ndarray:
    moments[place] = 0.9 * moments[place] + 0.1 * gradient
    moments[place + 1] = 0.999 * moments[place + 1] + 0.001 * gradient * gradient
    return rate * (moments[place] / (1 - 0.9**count)) / (np.sqrt(moments[place + 1] / (1 - 0.999**count)) + 1e-8)


def dop(
    base: StateDict,
    checkpoints: Sequence[StateDict],
    matrices: Collection[str],
    *,
    alpha: float,
    beta: float,
    share: float,
    steps: int,
    rate: float,
) -> dict[str, np.ndarray]:
    """Return the result of DOP on whole weights, as in the authors' code: two losses, their min-norm gradient, Adam."""
    merged = {name: value.astype(np.float64) for name, value in checkpoints[0].items()}
    for checkpoint in checkpoints[1:]:
        for name, start in base.items():
            goals = [merged[name], checkpoint[name].astype(np.float64)]
            value = (goals[0] + goals[1]) / 2
            if name in matrices:
                value = _optimize(value, goals, start, alpha, beta, share, steps, rate)
            merged[name] = value
    return merged


def _optimize(
    value: np.ndarray,
    goals: list[np.ndarray],
    start: np.ndarray,
    alpha: float,
    beta: float,
    share: float,
    steps: int,
    rate: float,
) -> np.ndarray:
    spaces = []
    for goal in goals:
        u, s, vh = np.linalg.svd(goal - start, full_matrices=False)
        rank = int(np.searchsorted(np.cumsum(s) / s.sum(), share))
        spaces.append((np.diag(s[:rank]) @ u[:, :rank].T, vh[:rank].T @ np.diag(s[:rank])))
    moments = [np.zeros_like(value), np.zeros_like(value)]
    weight = alpha
    for count in range(1, steps + 1):
        losses, gradients = [], []
        for goal, (left, right) in zip(goals, spaces, strict=True):
            difference = value - goal
            losses.append(np.sum((left @ difference) ** 2) + np.sum((difference @ right) ** 2))
            gradients.append(2 * left.T @ left @ difference + 2 * difference @ right @ right.T)
        first, second = (gradient / loss for gradient, loss in zip(gradients, losses, strict=True))
        candidates = np.sum((second - first) * second) / np.sum((first - second) ** 2)
        if np.sum(first * second) >= np.sum(first * first):
            candidates = 0.999
        elif np.sum(first * second) >= np.sum(second * second):
            candidates = 0.001
        weight = beta * weight + (1 - beta) * candidates
        value = value - _adam(weight * gradients[0] + (1 - weight) * gradients[1], moments, 0, count, rate)
    return value
