"""Random and awkward float64 matrices for tests of the linear algebra."""

from __future__ import annotations

import numpy as np


def with_values(rng: np.random.Generator, rows: int, columns: int, values: np.ndarray) -> np.ndarray:
    """Return a random matrix with the given singular values, (k,) for k <= min(rows, columns)."""
    left, _ = np.linalg.qr(rng.standard_normal((rows, len(values))))
    right, _ = np.linalg.qr(rng.standard_normal((columns, len(values))))
    matrix: np.ndarray = (left * values) @ right.T
    return matrix


def decaying(rng: np.random.Generator, rows: int, columns: int, decades: float = 2.0) -> np.ndarray:
    """Return a matrix whose singular values decay smoothly; those of real task vectors span about two decades."""
    count = min(rows, columns)
    return with_values(rng, rows, columns, 10.0 ** (-decades * np.arange(count) / count))


def awkward_pairs(rng: np.random.Generator) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return pairs (accumulated delta, task vector) of shapes and values that are hard to get right, by name."""
    normal = rng.standard_normal
    wide, tall, square = decaying(rng, 24, 80), decaying(rng, 80, 24), decaying(rng, 48, 48)
    above_noise = np.r_[1.0, 1e-5 * (1 + np.arange(39) / 39)]
    crowded = np.r_[1.0, 1e-2 * (1 + np.arange(39) / 200)]
    return {
        "wide": (wide, normal((24, 80))),
        "tall": (tall, normal((80, 24))),
        "square": (square, normal((48, 48))),
        "gaussian": (normal((40, 64)), normal((40, 64))),
        "gaussian square": (normal((64, 64)), normal((64, 64))),
        "one row": (normal((1, 33)), normal((1, 33))),
        "one column": (normal((33, 1)), normal((33, 1))),
        "one number": (normal((1, 1)), normal((1, 1))),
        "rank one": (np.outer(normal(20), normal(30)), normal((20, 30))),
        "rank 5 of 40": (normal((40, 5)) @ normal((5, 60)), normal((40, 60))),
        "rank 5 of 40, square": (normal((40, 5)) @ normal((5, 40)), normal((40, 40))),
        "a zero row and column": (square * (np.arange(48) != 3) * (np.arange(48) != 7)[:, None], normal((48, 48))),
        "zero accumulated delta": (np.zeros((12, 30)), normal((12, 30))),
        "zero task vector": (wide, np.zeros((24, 80))),
        "repeated": (wide, wide.copy()),
        "undone": (square, -square),
        "tiny": (wide * 1e-30, normal((24, 80)) * 1e-30),
        "huge": (tall * 1e30, normal((80, 24)) * 1e30),
        "beyond squares": (wide * 1e200, normal((24, 80)) * 1e180),
        "below squares": (square * 1e-200, normal((48, 48)) * 1e-250),
        "huge on tiny": (wide * 1e-18, normal((24, 80)) * 1e18),
        "four decades": (decaying(rng, 40, 64, 4.0), normal((40, 64))),
        "five decades": (decaying(rng, 40, 40, 5.0), normal((40, 40))),
        "one direction far above noise": (with_values(rng, 40, 60, above_noise), normal((40, 60))),
        "values crowd at the split": (with_values(rng, 40, 60, crowded), normal((40, 60))),
        "two clusters": (
            with_values(rng, 32, 48, np.r_[1 + 1e-5 * np.arange(16), 0.1 + 1e-5 * np.arange(16)]),
            normal((32, 48)),
        ),
        "column-major": (np.asfortranarray(wide), np.asfortranarray(normal((24, 80)))),
    }


AWKWARD = tuple(awkward_pairs(np.random.default_rng(0)))
"""Names of the awkward pairs."""
