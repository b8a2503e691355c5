"""Joint methods on angles and singular vectors, against literal oracles: a few lines of torch in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import hubmerge
from hubmerge import CheckpointError
from hubmerge.errors import RecipeError
from tests.methods.joint.models import Tensor, agrees, merged, models, own


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


def test_weights_that_sum_to_zero_are_refused() -> None:
    base, *others = models(2)
    for method in ("linear", "multislerp", "nuslerp"):
        with pytest.raises(RecipeError, match="sum to zero"):
            merged(method, base, others, own=own([0.5, -0.5]))
