"""Adam, for methods that minimize a loss on one matrix."""

from __future__ import annotations

from hubmerge.support.lazy import torch


class Adam:
    """Adam (arXiv:1412.6980, Algorithm 1) on one float64 tensor, with the usual β_1 = 0.9, β_2 = 0.999, ε = 1e-8."""

    def __init__(self, value: torch.Tensor, learning_rate: float) -> None:
        self.value = value
        self._rate = learning_rate
        self._mean, self._square = torch.zeros_like(value), torch.zeros_like(value)
        self._count = 0

    def step(self, gradient: torch.Tensor) -> torch.Tensor:
        """Update the value and return it."""
        self._count += 1
        self._mean = 0.9 * self._mean + 0.1 * gradient
        self._square = 0.999 * self._square + 0.001 * gradient**2
        mean = self._mean / (1.0 - 0.9**self._count)
        square = self._square / (1.0 - 0.999**self._count)
        self.value = self.value - self._rate * mean / (square.sqrt() + 1e-8)
        return self.value
