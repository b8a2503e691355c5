"""linear, slerp, task_arithmetic and ties in the joint form, against literal oracles."""

from __future__ import annotations

import math

import pytest
import torch

import hubmerge
from hubmerge.methods import is_joint
from tests.methods.joint.models import SHAPES, agrees, merged, models, own

WEIGHTS = [[1.0, 1.0, 1.0], [0.5, 2.0, 0.1], [1.0, -0.4, 0.3]]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_linear(weights: list[float], normalize: bool) -> None:
    def oracle(*tensors: torch.Tensor) -> torch.Tensor:
        total = sum((w * x for w, x in zip(weights, tensors, strict=True)), torch.zeros_like(tensors[0]))
        return total / sum(weights) if normalize else total

    others = models(2)
    result = merged("linear", None, others, own=own(weights), normalize=normalize)
    assert agrees(result, oracle, None, others)


def test_the_base_model_is_part_of_the_mean_where_it_is_listed() -> None:
    base, one = models(1)
    with_base = merged("linear", base, [base, one], own=own([0.5, 0.5]))
    assert agrees(with_base, lambda _, x, y: (x + y) / 2, base, [base, one])
    alone = merged("linear", base, [one], own=own([0.5]))
    assert agrees(alone, lambda _, x: x, base, [one])


@pytest.mark.parametrize("distance", [0.001, 3.0])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_slerp(t: float, distance: float) -> None:
    def oracle(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        cosine = float((first * second).sum() / first.norm() / second.norm())
        if abs(cosine) > 0.9995:
            return (1 - t) * first + t * second
        angle = math.acos(cosine)
        return (math.sin((1 - t) * angle) * first + math.sin(t * angle) * second) / math.sin(angle)

    base, one = models(1, distance=distance)
    assert agrees(merged("slerp", base, [one], t=t), oracle, base, [one])


def test_slerp_takes_zeros_for_a_vector_across() -> None:
    base = {"a.weight": torch.zeros(3)}
    one = {"a.weight": torch.tensor([1.0, 2.0, 2.0])}
    assert torch.allclose(merged("slerp", base, [one], t=0.5)["a.weight"], one["a.weight"] * math.sin(math.pi / 4))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weights", [*WEIGHTS, [0.5, 0.75, -1.0]])
def test_task_arithmetic(weights: list[float], normalize: bool) -> None:
    def oracle(base: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
        total = sum((w * (x - base) for w, x in zip(weights, tensors, strict=True)), torch.zeros_like(base))
        return base + 0.7 * (total / sum(weights) if normalize else total)

    base, *others = models(3)
    result = merged("task_arithmetic", base, others, own=own(weights), normalize=normalize, factor=0.7)
    assert agrees(result, oracle, base, others)


def trimmed(delta: torch.Tensor, density: float) -> torch.Tensor:
    kept = max(1, int(density * delta.numel())) if density > 0 else 0
    order = torch.argsort(delta.abs().flatten(), descending=True, stable=True)[:kept]
    mask = torch.zeros(delta.numel(), dtype=delta.dtype)
    mask[order] = 1
    return delta * mask.view(delta.shape)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.5, 1.0])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_ties(weights: list[float], density: float, normalize: bool) -> None:
    def oracle(base: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
        terms = torch.stack([w * trimmed(x - base, density) for w, x in zip(weights, tensors, strict=True)])
        sign = torch.where(terms.sum(0) >= 0, 1.0, -1.0)
        agree = terms.sign() == sign
        divisor = (torch.tensor(weights).view(-1, *[1] * base.dim()) * agree).sum(0)
        total = (terms * agree).sum(0)
        return base + 1.3 * (total / torch.where(divisor == 0, 1.0, divisor) if normalize else total)

    base, *others = models(3)
    result = merged("ties", base, others, own=own(weights, density=density), normalize=normalize, factor=1.3)
    assert agrees(result, oracle, base, others)


def test_of_equal_magnitudes_the_first_are_kept() -> None:
    base = {"a.weight": torch.zeros(6)}
    one = {"a.weight": torch.tensor([1.0, -1.0, 1.0, 0.5, 1.0, -2.0])}
    found = [
        merged("ties", base, [one], own=[{"weight": 1.0, "density": density}])["a.weight"].tolist()
        for density in (0.5, 0.7, 0.9)
    ]
    assert found[0] == [1.0, -1.0, 0.0, 0.0, 0.0, -2.0]
    assert found[1] == [1.0, -1.0, 1.0, 0.0, 0.0, -2.0]
    assert found[2] == [1.0, -1.0, 1.0, 0.0, 1.0, -2.0]


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "ties"])
def test_both_forms_of_a_name_agree(method: str) -> None:
    base, *others = models(3, dtype=torch.bfloat16)
    stream = hubmerge.merge_state_dicts(base, others, method=method, own_parameters=own([1.0, 0.5, 0.3]))
    joint = merged(method, base, others, own=own([1.0, 0.5, 0.3]))
    ulp = 2.0**-7
    for name in SHAPES:
        assert float((stream[name].double() - joint[name].double()).abs().max()) <= ulp * 4


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"merge_method": "ties", "base_model": "me/base", "models": [{"model": "me/a"}]}, False),
        ({"merge_method": "ties", "base_model": "me/base", "models": [{"model": "me/a"}], "form": "joint"}, True),
        ({"merge_method": "linear", "base_model": "me/base", "models": [{"model": "me/a"}]}, False),
        ({"merge_method": "linear", "base_model": "me/base", "models": [{"model": "me/base"}]}, True),
        ({"merge_method": "linear", "models": [{"model": "me/a"}]}, True),
        ({"merge_method": "opcm", "base_model": "me/base", "models": [{"model": "me/a"}]}, False),
    ],
)
def test_the_form_that_a_recipe_means(keys: dict[str, object], expected: bool) -> None:
    keys = {**keys, "models": [{**one, "parameters": {"weight": 1.0}} for one in keys["models"]]}  # type: ignore[attr-defined]
    if keys["merge_method"] == "opcm":
        keys["models"] = [{"model": "me/a"}]
    assert is_joint(hubmerge.load(keys).recipe) is expected


def test_normalize_false_means_the_joint_form_of_linear() -> None:
    keys = {"merge_method": "linear", "base_model": "me/base", "models": [{"model": "me/a"}]}
    assert is_joint(hubmerge.load({**keys, "parameters": {"normalize": False}}).recipe)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"merge_method": "slerp", "parameters": {"t": 0.5}, "models": 2}, "slerp merges 1 model besides the base"),
        ({"merge_method": "slerp", "models": 1}, "the method slerp needs this parameter"),
        ({"merge_method": "opcm", "models": 1, "form": "joint"}, "it has no joint form"),
        (
            {"merge_method": "slerp", "parameters": {"t": 0.5}, "models": 1, "form": "stream"},
            "merges all models at once",
        ),
        ({"merge_method": "ties", "models": 2, "form": "joint"}, "the method ties needs this parameter"),
    ],
)
def test_what_a_recipe_of_a_joint_method_must_have(keys: dict[str, object], message: str) -> None:
    count = keys["models"]
    assert isinstance(count, int)
    whole = {"base_model": "me/base", **keys, "models": [{"model": f"me/m{number}"} for number in range(count)]}
    with pytest.raises(hubmerge.RecipeError, match=message):
        hubmerge.load(whole)


def test_slerp_needs_a_base_model() -> None:
    keys = {"merge_method": "slerp", "form": "joint", "models": [{"model": "me/a"}], "parameters": {"t": 0.5}}
    with pytest.raises(hubmerge.RecipeError, match="slerp starts from a base model"):
        hubmerge.load(keys)
