"""Joint methods that choose elements, against literal oracles: a few lines of torch in float64, from the equations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hubmerge import CheckpointError
from hubmerge.methods.joint.draws import uniform
from hubmerge.methods.joint.elementwise import variance
from tests.checks import every
from tests.methods.joint.models import SHAPES, WEIGHTS, StateDict, Tensor, agrees, merged, models, own


def elect(terms: Tensor, weights: list[float]) -> tuple[Tensor, Tensor]:
    """Return the sum of the terms with the elected sign, and the sum of their weights."""
    agree = terms.sign() == torch.where(terms.sum(0) >= 0, 1.0, -1.0)
    shaped = torch.tensor(weights, dtype=torch.float64).view(-1, *[1] * (terms.dim() - 1))
    return (terms * agree).sum(0), (shaped * agree).sum(0)


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize("rescale", [True, False])
def test_dare_with_its_own_draws(method: str, rescale: bool) -> None:
    base, *others = models(3)
    result = merged(method, base, others, own=own(density=0.6), recipe={"seed": 3}, rescale=rescale)
    for name in SHAPES:
        terms = []
        for number, (weight, other) in enumerate(zip(WEIGHTS, others, strict=True)):
            delta = (other[name] - base[name]).double()
            kept = delta * (uniform(3, name, number, 0, delta.numel()).view(delta.shape) < 0.6)
            terms.append(weight * kept * (delta.abs().sum() / kept.abs().sum() if rescale else 1.0))
        total = torch.stack(terms).sum(0) if method == "dare_linear" else elect(torch.stack(terms), WEIGHTS)[0]
        assert (result[name].double() - base[name].double() - total).abs().max() < 2e-6


def test_dare_keeps_the_density_and_the_mean() -> None:
    base = {"a.weight": torch.zeros(400, 500)}
    one = {"a.weight": torch.ones(400, 500)}
    result = merged("dare_linear", base, [one], own=[{"weight": 1.0, "density": 0.25}])["a.weight"]
    assert abs(float((result != 0).float().mean()) - 0.25) < 0.01
    assert abs(float(result.mean()) - 1.0) < 1e-3


def test_della_keeps_larger_elements_more_often() -> None:
    row = torch.arange(1, 1001, dtype=torch.float32)
    base = {"a.weight": torch.zeros(200, 1000)}
    one = {"a.weight": row.expand(200, 1000).contiguous()}
    kept = merged("della_linear", base, [one], own=[{"weight": 1.0, "density": 0.5, "epsilon": 0.3}], rescale=False)
    shares = (kept["a.weight"] != 0).float().mean(0)
    for begin, expected in ((0, 0.23), (450, 0.5), (900, 0.77)):
        assert abs(float(shares[begin : begin + 100].mean()) - expected) < 0.02


def test_della_with_its_own_draws() -> None:
    base, *others = models(3)
    result = merged("della", base, others, own=own(density=0.6, epsilon=0.2))
    for name in SHAPES:
        terms = []
        for number, (weight, other) in enumerate(zip(WEIGHTS, others, strict=True)):
            delta = other[name].double() - base[name].double()
            rows = delta.reshape(-1, delta.shape[-1])
            ranks = torch.from_numpy(np.argsort(np.argsort(rows.abs().numpy(), 1), 1))
            chance = 0.4 + 0.4 * ranks / (rows.shape[1] - 1)
            kept = rows * (uniform(0, name, number, 0, delta.numel()).view(rows.shape) < chance)
            factor = float(delta.abs().sum() / kept.abs().sum()) if bool(kept.any()) else 1.0
            terms.append((weight * factor * kept).view(delta.shape))
        total, divisor = elect(torch.stack(terms), WEIGHTS)
        expected = total / torch.where(divisor == 0, 1.0, divisor)
        assert (result[name].double() - base[name].double() - expected).abs().max() < 1e-5


def test_della_refuses_probabilities_outside_of_0_and_1() -> None:
    base, one = models(1)
    with pytest.raises(CheckpointError, match="plus and minus epsilon"):
        merged("della", base, [one], own=[{"weight": 1.0, "density": 0.1}])


@pytest.mark.parametrize("method", ["breadcrumbs", "breadcrumbs_ties"])
@pytest.mark.parametrize(("density", "gamma"), [(0.5, 0.2), (0.9, 0.3), (0.0, 0.1), (1.0, 0.5)])
def test_breadcrumbs(method: str, density: float, gamma: float) -> None:
    def oracle(base: Tensor, *tensors: Tensor) -> Tensor:
        terms = []
        for weight, x in zip(WEIGHTS, tensors, strict=True):
            delta = x - base
            count = delta.numel()
            kept = int(density * count)
            low = max(0, count - kept - int(gamma * count))
            order = torch.argsort(delta.abs().flatten())[low : low + kept] if density < 1 else torch.arange(count)
            mask = torch.zeros(count, dtype=torch.float64).scatter_(0, order, 1.0)
            terms.append(weight * delta * mask.view(delta.shape))
        return base + (torch.stack(terms).sum(0) if method == "breadcrumbs" else elect(torch.stack(terms), WEIGHTS)[0])

    base, *others = models(3)
    assert agrees(merged(method, base, others, own=own(density=density, gamma=gamma)), oracle, base, others)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_variance_of_sce_is_that_of_torch_and_zero_where_all_values_are_equal(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    values = torch.randn(count, 1000, generator=generator)
    values[:, ::3] = values[0, ::3]
    found, expected = variance(values), torch.var(values, dim=0, unbiased=False)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert not found[::3].any()


@pytest.mark.parametrize("share", [1.0, 0.3, 0.0])
def test_sce(share: float) -> None:
    def oracle(base: Tensor, *tensors: Tensor) -> Tensor:
        deltas = torch.stack([x - base for x in tensors])
        variance = deltas.var(0, unbiased=False)
        kept = int(int((variance != 0).sum()) * share)
        mask = torch.zeros(variance.numel(), dtype=torch.float64)
        mask[torch.argsort(variance.flatten(), descending=True)[:kept]] = 1.0
        deltas = deltas * (mask.view(variance.shape) if share < 1 else 1.0)
        energy = (deltas**2).flatten(1).sum(1)
        weights = (energy / energy.sum() if energy.sum() > 0 else torch.full_like(energy, 1 / 3)).tolist()
        shaped = torch.tensor(weights, dtype=torch.float64).view(-1, *[1] * base.dim())
        agree = deltas.sign() == torch.where(deltas.sum(0) >= 0, 1.0, -1.0)
        return base + (deltas * agree * shaped).sum(0) / (agree * shaped).sum(0).clamp(min=1e-6)

    base, *others = models(3)
    assert agrees(merged("sce", base, others, select_topk=share), oracle, base, others)


def test_nearswap() -> None:
    def oracle(base: Tensor, x: Tensor) -> Tensor:
        share = torch.minimum(torch.ones_like(base), 0.05 / (base - x).abs().clamp(min=1e-6))
        return share * x + (1 - share) * base

    base, one = models(1)
    assert agrees(merged("nearswap", base, [one], t=0.05), oracle, base, [one])


def test_arcee_fusion() -> None:
    def oracle(base: Tensor, x: Tensor) -> Tensor:
        p, q = torch.softmax(x, -1) + 1e-8, torch.softmax(base, -1) + 1e-8
        importance = (x - base).abs() * (p * (p / q).log()).sum(-1, keepdim=True)
        ordered = importance.flatten().sort().values
        first, median, third = (ordered[int(share * (len(ordered) - 1))] for share in (0.25, 0.5, 0.75))
        return torch.where(importance >= median + 1.5 * (third - first), x, base)

    base, one = models(1, dtype=torch.float64)
    assert agrees(merged("arcee_fusion", base, [one]), oracle, base, [one])


@pytest.mark.parametrize("method", ["ram", "ramplus_tl"])
def test_ram(method: str) -> None:
    def oracle(base: Tensor, *tensors: Tensor) -> Tensor:
        deltas = torch.stack([x - base for x in tensors])
        changed = deltas.abs() > 0.08
        count = changed.sum(0)
        result = torch.zeros_like(base)
        for delta, mask in zip(deltas, changed, strict=True):
            shared, alone = int((mask & (count > 1)).sum()), int((mask & (count == 1)).sum())
            factor = 1 + 0.5 * min(shared / max(alone, 0.08), 0.9) if method == "ramplus_tl" else 1.0
            result += torch.where(mask & (count == 1), factor * delta, 0.0)
            result += torch.where(mask & (count > 1), delta / count.clamp(min=1), 0.0)
        return base + result

    base, *others = models(3)
    parameters: dict[str, Any] = {"epsilon": 0.08} | ({"r": 0.5, "alpha": 0.9} if method == "ramplus_tl" else {})
    assert agrees(merged(method, base, others, **parameters), oracle, base, others)


def test_passthrough() -> None:
    (one,) = models(0)
    assert agrees(merged("passthrough", None, [one]), lambda x: x, None, [one], 0.0)
    scaled = merged("passthrough", None, [one], scale=[{"filter": "up", "value": 2.0}])
    assert every(torch.equal(scaled[name], value * (2 if "up" in name else 1)) for name, value in one.items())


def test_pcb() -> None:
    def normal(x: Tensor) -> Tensor:
        return (x - x.min()) / (x.max() - x.min())

    def clipped(x: Tensor, low: float, high: float) -> Tensor:
        ordered = x.flatten().sort().values
        return x.clamp(ordered[int(len(ordered) * low)], ordered[int(len(ordered) * (1 - high) - 1)])

    def oracle(base: Tensor, *tensors: Tensor) -> Tensor:
        deltas = [x - base for x in tensors]
        total = sum(deltas, torch.zeros_like(base))
        weights, moved = [], []
        for delta in deltas:
            size = clipped(delta.abs(), 0.0001, 0.0001)
            score = torch.exp(3 * normal(size) ** 2) * torch.tanh(delta * total)
            weights.append(normal(clipped(score, 0.7, 0.0)))
            moved.append(delta.sign() * size)
        merged_delta = sum((w * d for w, d in zip(weights, moved, strict=True)), torch.zeros_like(base))
        return base + 0.8 * merged_delta / sum(weights, torch.zeros_like(base)).clamp(min=1e-12)

    base, *others = models(3)
    assert agrees(merged("pcb", base, others, density=0.3, factor=0.8), oracle, base, others, 1e-5)


def test_other_dtypes_are_rounded_once() -> None:
    base, *others = models(3, dtype=torch.bfloat16)
    wide: list[StateDict] = [{name: value.float() for name, value in one.items()} for one in (base, *others)]
    for method in ("ties", "breadcrumbs", "sce", "model_stock", "ram"):
        weights = own() if method in ("ties", "breadcrumbs") else None
        narrow = merged(method, base, others, own=weights)
        exact = merged(method, wide[0], wide[1:], own=weights)
        assert every(torch.equal(narrow[name], exact[name].bfloat16()) for name in narrow)
