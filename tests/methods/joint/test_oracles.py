"""Joint methods against literal oracles: a few lines of plain torch in float64, from the papers' equations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import hubmerge
from hubmerge import CheckpointError
from hubmerge.errors import RecipeError
from hubmerge.methods.joint.draws import uniform
from hubmerge.methods.joint.elementwise import variance
from tests.methods.joint.models import SHAPES, StateDict, agrees, merged, models

WEIGHTS = [1.0, 0.5, -0.3]
Tensor = torch.Tensor


def own(weights: list[float] = WEIGHTS, **others: float) -> list[dict[str, float]]:
    return [{"weight": weight, **others} for weight in weights]


def elect(terms: Tensor, weights: list[float]) -> tuple[Tensor, Tensor]:
    """Return the sum of the terms with the elected sign, and the sum of their weights."""
    agree = terms.sign() == torch.where(terms.sum(0) >= 0, 1.0, -1.0)
    shaped = torch.tensor(weights, dtype=torch.float64).view(-1, *[1] * (terms.dim() - 1))
    return (terms * agree).sum(0), (shaped * agree).sum(0)


def angle(first: Tensor, second: Tensor) -> float:
    return math.acos(float((first * second).sum() / first.norm() / second.norm()))


def between(first: Tensor, second: Tensor, t: float) -> Tensor:
    omega = angle(first, second)
    return (math.sin((1 - t) * omega) * first + math.sin(t * omega) * second) / math.sin(omega)


@pytest.mark.parametrize("form", ["flat", "rows", "columns"])
@pytest.mark.parametrize("with_base", [True, False])
def test_nuslerp(form: str, with_base: bool) -> None:
    def vectors(first: Tensor, second: Tensor) -> Tensor:
        if form == "flat" or first.dim() == 1:
            return between(first, second, 0.3 / 0.8)
        pairs = [(first.T, second.T), (first, second)][form == "rows"]
        rows = torch.stack([between(one, other, 0.3 / 0.8) for one, other in zip(*pairs, strict=True)])
        return rows if form == "rows" else rows.T

    base, *others = models(2, distance=1.0)
    switches: dict[str, Any] = {"nuslerp_flatten": form == "flat", "nuslerp_row_wise": form == "columns"}
    result = merged("nuslerp", base if with_base else None, others, own=own([0.5, 0.3]), **switches)
    if with_base:
        assert agrees(result, lambda b, x, y: b + vectors(x - b, y - b), base, others)
    else:
        assert agrees(result, vectors, None, others)


def test_nuslerp_of_equal_models() -> None:
    base, one = models(1, distance=1.0)
    same = merged("nuslerp", base, [one, one], own=own([0.2, 0.8]))
    assert agrees(same, lambda b, x, y: x, base, [one, one])


@pytest.mark.parametrize("normalize", [True, False])
def test_multislerp(normalize: bool) -> None:
    def oracle(base: Tensor, *tensors: Tensor) -> Tensor:
        deltas = [x - base for x in tensors]
        weights = [w / (sum([1.0, 0.5, 0.3]) if normalize else 1.0) for w in [1.0, 0.5, 0.3]]
        mean = sum((w * d / d.norm() for w, d in zip(weights, deltas, strict=True)), torch.zeros_like(base))
        return base + mean / mean.norm() * sum(w * float(d.norm()) for w, d in zip(weights, deltas, strict=True))

    base, *others = models(3)
    result = merged("multislerp", base, others, own=own([1.0, 0.5, 0.3]), normalize_weights=normalize)
    assert agrees(result, oracle, base, others)


def test_multislerp_of_opposite_models() -> None:
    base = {"a.weight": torch.zeros(2)}
    ends = [{"a.weight": torch.tensor([value, 0.0])} for value in (1.0, -1.0)]
    assert merged("multislerp", base, ends, own=own([1.0, 1.0]))["a.weight"].tolist() == [0.0, 0.0]
    three = [*ends, {"a.weight": torch.zeros(2)}]
    with pytest.raises(CheckpointError, match="the directions of the models cancel"):
        merged("multislerp", base, three, own=own([1.0, 1.0, 1.0]))


def test_karcher() -> None:
    def oracle(*tensors: Tensor) -> Tensor:
        units = [x / x.norm() for x in tensors]
        mean = sum(units, torch.zeros_like(units[0]))
        mean = mean / mean.norm()
        for _ in range(40):
            logs = [angle(mean, u) / math.sin(angle(mean, u)) * (u - (u * mean).sum() * mean) for u in units]
            step = sum(logs, torch.zeros_like(mean)) / len(units)
            mean = math.cos(float(step.norm())) * mean + math.sin(float(step.norm())) * step / step.norm()
        return mean * sum(float(x.norm()) for x in tensors) / len(tensors)

    others = models(2, distance=1.0)
    result = merged("karcher", None, others, max_iter=20, tol=1e-9)
    assert agrees(result, oracle, None, others, 1e-5)


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


@pytest.mark.parametrize("filter_wise", [True, False])
def test_model_stock(filter_wise: bool) -> None:
    def ratio(deltas: list[Tensor]) -> float:
        pairs = [(0, 1), (0, 2), (1, 2)]
        cosine = sum(math.cos(angle(deltas[a], deltas[b])) for a, b in pairs) / 3
        return 3 * cosine / (1 + 2 * cosine)

    def oracle(base: Tensor, *tensors: Tensor) -> Tensor:
        if filter_wise and base.dim() == 2:
            return torch.stack([oracle(base[k], *(x[k] for x in tensors)) for k in range(len(base))])
        t = ratio([x - base for x in tensors])
        return t * sum(tensors, torch.zeros_like(base)) / 3 + (1 - t) * base

    base, *others = models(3)
    assert agrees(merged("model_stock", base, others, filter_wise=filter_wise), oracle, base, others, 1e-5)


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
    assert all(torch.equal(scaled[name], value * (2 if "up" in name else 1)) for name, value in one.items())


def is_matrix(tensor: Tensor) -> bool:
    return tensor.dim() == 2 and tensor.shape != (11, 6)  # the embedding


def orthogonal(matrix: Tensor) -> Tensor:
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    return left @ right


def tsv_m(deltas: list[Tensor]) -> Tensor:
    left, middle, right = [], [], []
    for delta in deltas:
        u, s, v = torch.linalg.svd(delta, full_matrices=False)
        kept = max(1, len(s) // len(deltas))
        left.append(u[:, :kept])
        middle += s[:kept].tolist()
        right.append(v[:kept])
    diagonal = torch.diag(torch.tensor(middle, dtype=torch.float64))
    return orthogonal(torch.cat(left, 1)) @ diagonal @ orthogonal(torch.cat(right, 0))


def iso_cts(deltas: list[Tensor]) -> Tensor:
    u, s, v = torch.linalg.svd(sum(deltas, torch.zeros_like(deltas[0])), full_matrices=False)
    own_rank = round((len(s) - int(len(s) * 0.4)) / len(deltas))
    common = len(s) - own_rank * len(deltas)
    left, middle, right = [u[:, :common]], s[:common].tolist(), [v[:common]]
    for delta in deltas:
        part = torch.linalg.svd(delta - u[:, :common] @ u[:, :common].T @ delta, full_matrices=False)
        left.append(part[0][:, :own_rank])
        middle += part[1][:own_rank].tolist()
        right.append(part[2][:own_rank])
    return sum(middle) / len(middle) * orthogonal(torch.cat(left, 1)) @ orthogonal(torch.cat(right, 0))


@pytest.mark.parametrize(("method", "formula"), [("tsv_m", tsv_m), ("iso_cts", iso_cts)])
def test_methods_on_singular_vectors(method: str, formula: Callable[[list[Tensor]], Tensor]) -> None:
    def oracle(base: Tensor, *tensors: Tensor) -> Tensor:
        deltas = [x - base for x in tensors]
        return base + 0.7 * (formula(deltas) if is_matrix(base) else sum(deltas, torch.zeros_like(base)) / 3)

    base, *others = models(3)
    parameters: dict[str, Any] = {"scaling": 0.7} | ({"common": 0.4} if method == "iso_cts" else {})
    assert agrees(merged(method, base, others, **parameters), oracle, base, others, 1e-5)


def test_iso_cts_leaves_directions_without_a_singular_value_out() -> None:
    generator = torch.Generator().manual_seed(1)
    base = {"up.weight": torch.zeros(12, 10, dtype=torch.float64)}
    factors = [[torch.randn(shape, generator=generator).double() for shape in ((12, 1), (1, 10))] for _ in range(2)]
    result = merged("iso_cts", base, [{"up.weight": left @ right} for left, right in factors])["up.weight"]
    values = torch.linalg.svdvals(result)
    assert int((values > 1e-8 * values[0]).sum()) <= 4


@pytest.mark.parametrize("of", ["task_arithmetic", "ties", "tsv_m"])
def test_svc(of: str) -> None:
    base, *others = models(3)
    own_parameters = None if of == "tsv_m" else own([0.5, 0.4, 0.3])
    keys: dict[str, Any] = {"density": 0.7} if of == "ties" else {}
    plain = merged(of, base, others, own=own_parameters, **keys)
    result = merged("svc", base, others, own=own_parameters, of=of, alpha=0.2, **keys)
    for name, start in base.items():
        delta = plain[name].double() - start.double()
        if is_matrix(start):
            u, s, v = torch.linalg.svd(delta, full_matrices=False)
            for r in range(len(s)):
                responses = [u[:, r] @ (other[name].double() - start.double()) for other in others]
                shares = [float((u[:, r] @ delta) @ one / (one @ one)) for one in responses]
                s[r] *= 3 / sum(max(0.2, share) for share in shares)
            delta = u @ torch.diag(s) @ v
        assert (result[name].double() - start.double() - delta).abs().max() < 1e-5


def test_svc_leaves_one_task_alone() -> None:
    base, one = models(1)
    assert agrees(merged("svc", base, [one], own=own([1.0])), lambda b, x: x, base, [one], 1e-5)


@pytest.mark.parametrize("of", ["task_arithmetic", "della", "iso_cts"])
def test_lines(of: str) -> None:
    base, *others = models(3)
    own_parameters = None if of == "iso_cts" else own([0.5, 0.4, 0.3])
    plain = merged(of, base, others, own=own_parameters)
    result = merged("lines", base, others, own=own_parameters, of=of, alpha=0.3, beta=0.5)
    factors = {"embed_tokens.weight": 0.3, "layers.0.up.weight": 0.3}
    for name, start in base.items():
        expected = start + factors.get(name, 0.8) * (plain[name] - start)
        assert (result[name] - expected).abs().max() < 1e-5


def test_the_parameters_of_the_other_method_are_checked() -> None:
    base, one = models(1)
    with pytest.raises(hubmerge.RecipeError, match="task_arithmetic needs the parameter weight"):
        merged("svc", base, [one])
    with pytest.raises(hubmerge.RecipeError, match="tsv_m has no parameter density"):
        merged("lines", base, [one], of="tsv_m", density=0.5)


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


def test_weights_that_sum_to_zero_are_refused() -> None:
    base, *others = models(2)
    for method in ("linear", "multislerp", "nuslerp"):
        with pytest.raises(RecipeError, match="sum to zero"):
            merged(method, base, others, own=own([0.5, -0.5]))


def test_other_dtypes_are_rounded_once() -> None:
    base, *others = models(3, dtype=torch.bfloat16)
    wide: list[StateDict] = [{name: value.float() for name, value in one.items()} for one in (base, *others)]
    for method in ("ties", "breadcrumbs", "sce", "model_stock", "ram"):
        weights = own() if method in ("ties", "breadcrumbs") else None
        narrow = merged(method, base, others, own=weights)
        exact = merged(method, wide[0], wide[1:], own=weights)
        assert all(torch.equal(narrow[name], exact[name].bfloat16()) for name in narrow)
