"""Small models for joint merges, and the literal oracle's way to see them: float64 tensors by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

import hubmerge

Tensor = torch.Tensor
StateDict = Mapping[str, Tensor]

SHAPES = {
    "embed_tokens.weight": (11, 6),
    "layers.0.up.weight": (9, 6),
    "layers.1.up.weight": (6, 9),
    "layers.1.norm.weight": (6,),
}

WEIGHTS = [1.0, 0.5, -0.3]


def own(weights: Sequence[float] = WEIGHTS, **others: float) -> list[dict[str, float]]:
    """Return the parameters of each model: its weight and the others."""
    return [{"weight": weight, **others} for weight in weights]


def models(count: int, *, seed: int = 0, dtype: torch.dtype = torch.float32, distance: float = 0.1) -> list[StateDict]:
    """Return a base model and `count` models around it."""
    generator = torch.Generator().manual_seed(seed)
    base = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}

    def around() -> StateDict:
        return {name: value + distance * torch.randn(value.shape, generator=generator) for name, value in base.items()}

    found = [base, *(around() for _ in range(count))]
    return [{name: value.to(dtype) for name, value in model.items()} for model in found]


def merged(
    method: str,
    base: StateDict | None,
    others: Sequence[StateDict],
    *,
    own: Sequence[Mapping[str, Any]] | None = None,
    recipe: Mapping[str, Any] | None = None,
    factor: float | None = None,
    **parameters: Any,
) -> StateDict:
    """Merge in the joint form; `factor` is the parameter `lambda`."""
    parameters = parameters if factor is None else {**parameters, "lambda": factor}
    keys = {"form": "joint", **(recipe or {})}
    return hubmerge.merge_state_dicts(
        base, others, method=method, parameters=parameters, own_parameters=own, recipe=keys
    )


def agrees(
    result: StateDict,
    oracle: Callable[..., torch.Tensor],
    base: StateDict | None,
    others: Sequence[StateDict],
    bound: float = 2e-6,
) -> bool:
    """Return True if each tensor is that of the oracle, which receives base and models in float64."""
    for name, value in result.items():
        args = [one[name].double() for one in others]
        expected = oracle(*args) if base is None else oracle(base[name].double(), *args)
        if value.shape != expected.shape or float((value.double() - expected).abs().max()) > bound:
            return False
    return True
