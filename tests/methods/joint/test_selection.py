"""Order statistics, masks, ranks and draws of joint methods: each against the plain form of NumPy or torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hubmerge.methods.joint import brackets
from hubmerge.methods.joint.draws import BitMasks, draws, limits, uniform
from hubmerge.methods.joint.masks import as_numbers, at_least, choose, counted, greater
from hubmerge.methods.joint.methods import JOINT_METHODS
from hubmerge.methods.joint.ranks import ascending
from hubmerge.methods.joint.selection import cuts, order_statistics
from hubmerge.methods.joint.sparse import kept_by_rank
from tests.methods.joint.models import StateDict, merged

COUNT, BLOCK = 70_000, 9001


def random(seed: int = 0) -> torch.Tensor:
    return torch.randn(COUNT, generator=torch.Generator().manual_seed(seed)).abs_()


def with_atoms() -> torch.Tensor:
    """Return numbers of which a third are one number, and a quarter zero."""
    values = random(1)
    values[::3] = 0.7
    values[1::4] = 0.0
    return values


def misleading() -> torch.Tensor:
    """Return numbers whose sample has the largest ones only."""
    values = random(2)
    values[:: max(1, COUNT // brackets.FEWEST) | 1] += 10.0
    return values


KINDS: dict[str, Callable[[], torch.Tensor]] = {
    "random": random,
    "atoms": with_atoms,
    "misleading": misleading,
    "equal": lambda: torch.full((COUNT,), 0.25),
    "few bits": lambda: (random() * 8).round() / 8,
    "small": lambda: with_atoms()[:5000],
    "one": lambda: random()[:1],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_order_statistics_and_cuts_are_those_of_a_sort(
    kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brackets, "FEWEST", 1 << 12)  # a true sample of 70,000 numbers
    values = KINDS[kind]().to(dtype)
    total = len(values)
    ordered, stable = values.sort().values, np.argsort(-values.numpy(), kind="stable")
    places = sorted({0, 1 % total, total // 7, total // 2, total - 1})
    assert order_statistics(lambda: values.split(BLOCK), places, total) == [float(ordered[place]) for place in places]
    counts = sorted({0, 1, total // 50, total // 3, total // 2, total - 1, total})
    for cut, count in zip(cuts(lambda: values.split(BLOCK), counts, total), counts, strict=True):
        mask = torch.cat([cut.above(block, BLOCK * number) for number, block in enumerate(values.split(BLOCK))])
        assert torch.equal(torch.nonzero(mask).view(-1), torch.from_numpy(np.sort(stable[:count])))


def test_a_bracket_that_keeps_too_much_gives_no_answer_and_digits_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brackets, "FEWEST", 1 << 12)
    monkeypatch.setattr(brackets, "INSIDE", 10)
    values = random(3)
    sample = brackets.Sample(COUNT).take(values.split(BLOCK), count=False)
    assert sample is not None
    assert brackets.search(sample.brackets([COUNT // 2]), values.split(BLOCK)) is None
    assert order_statistics(lambda: values.split(BLOCK), [COUNT // 2], COUNT) == [
        float(values.sort().values[COUNT // 2])
    ]


def test_a_count_may_depend_on_how_many_numbers_are_not_zero() -> None:
    values = with_atoms()
    (cut,) = cuts(lambda: values.split(BLOCK), lambda varying: varying // 2, COUNT)
    assert counted(cut.above(values, 0)) == counted(values != 0.0) // 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masks_are_those_of_torch(dtype: torch.dtype) -> None:
    special = torch.tensor([0.0, -0.0, torch.nan, torch.inf, -torch.inf, 0.1, -0.1, 1e-5], dtype=dtype)
    values, others = special.repeat(8).view(8, 8), special.repeat_interleave(8).view(8, 8)
    for number in (0.0, 0.1, 1e-5):
        assert torch.equal(greater(values, number), values > number)
        assert torch.equal(at_least(values, number), values >= number)
        assert torch.equal(greater(values[0, 5], number), values[0, 5] > number)
    mask = values > others
    assert counted(mask) == int(mask.sum())
    assert torch.equal(as_numbers(mask, values), mask.to(dtype))
    integers = torch.int64 if dtype == torch.float64 else torch.int32
    wanted = torch.where(mask, values, others).view(integers)
    assert torch.equal(choose(mask, values, others).view(integers), wanted)
    assert torch.equal(choose(mask.T, values.T, others.T).contiguous().view(integers), wanted.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ranks_are_those_of_a_stable_sort(dtype: torch.dtype) -> None:
    rows = with_atoms()[:6000].view(6, 1000).to(dtype)
    rows[0] = rows[0].bfloat16()
    rows[1] = 0.0
    assert torch.equal(ascending(rows), torch.argsort(rows, dim=-1, stable=True))
    assert torch.equal(ascending(rows[:, ::2]), torch.argsort(rows[:, ::2], dim=-1, stable=True))


def test_draws_do_not_change_between_versions_and_compare_as_float32() -> None:
    assert draws(3, "a.weight", 1, 5, 6).tolist() == [754074, 3757868, 11875833, 879921, 14319970, 123320]
    numbers = uniform(0, "a", 0, 0, 20_000)
    whole = draws(0, "a", 0, 0, 20_000)
    for chance in (0.0, 1e-9, 0.1, 0.5, 0.9999999, 1.0 - 2.0**-30, float(numbers[0]), 1.0):
        assert torch.equal(torch.from_numpy(whole < limits(chance)), numbers < chance)
    chances = torch.linspace(-0.1, 1.1, 20_000)
    assert torch.equal(torch.from_numpy(whole < limits(chances)), numbers < chances)


def test_rows_are_kept_with_the_probability_of_their_ranks() -> None:
    rows = with_atoms()[:3000].view(3, 1000)
    chances = torch.arange(1000, dtype=torch.float32).mul_(2.0 * 0.2 / 999).add_(0.5 - 0.2)
    order = torch.argsort(rows, dim=-1, stable=True)
    wanted = uniform(0, "a", 0, 0, 3000).view(3, 1000) < torch.empty(3, 1000).scatter_(
        -1, order, chances.expand_as(order)
    )
    assert torch.equal(kept_by_rank(rows, draws(0, "a", 0, 0, 3000), 0.5, 0.2), wanted)
    assert counted(kept_by_rank(rows, draws(0, "a", 0, 0, 3000), 0.0, 0.2)) == 0


def test_masks_are_kept_as_bits() -> None:
    mask, masks = torch.rand(7, 11, generator=torch.Generator().manual_seed(0)) < 0.5, BitMasks()
    masks.add(4, mask)
    assert torch.equal(masks.read(4, torch.empty(7, 11)), mask)


@pytest.mark.parametrize("method", [method.name for method in JOINT_METHODS])
def test_tensors_without_elements_stay_as_they_are(method: str) -> None:
    models: list[StateDict] = [{"a.weight": torch.ones(2, 2) * n, "e.weight": torch.empty(0, 3)} for n in (1, 2, 4)]
    given = {name for one in JOINT_METHODS if one.name == method for name in one.Parameters.model_fields}
    count = next(one.most for one in JOINT_METHODS if one.name == method) or 2
    shared: dict[str, Any] = {"t": 0.5} if "t" in given else {}
    weights = [{"weight": 0.5}] * count if "weight" in given else None
    result = merged(method, models[0], models[1 : 1 + count], own=weights, **shared)
    assert result["e.weight"].shape == (0, 3)
