"""Joint merges in the executor: blocks, files, threads, dtypes, statistics, values that are not finite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import hubmerge
from hubmerge import CheckpointError, JointMethod, JointParameters, TensorView
from hubmerge.checkpoints import align, make_plan, open_checkpoint, weight_matrices
from hubmerge.executor import ExecutorContext
from hubmerge.executor.in_memory import StateDict
from hubmerge.executor.joint import JointInput, JointMerge, write_joint
from hubmerge.executor.reading import ELEMENTS_AT_ONCE
from hubmerge.methods import NoParameters
from hubmerge.methods.joint.draws import uniform
from hubmerge.methods.joint.methods import JOINT_METHODS
from tests.checks import every

LARGE = ELEMENTS_AT_ONCE + 1000


class Median(JointMethod):
    """Elementwise median, on whole tensors."""

    name, source, summary = "median", "by definition", "median of the models"
    base = "model"

    def merge(
        self, base: torch.Tensor | None, tensors: Sequence[torch.Tensor], parameters: JointParameters[Any]
    ) -> torch.Tensor:
        return torch.stack(list(tensors)).median(0).values


class RowSums(JointMethod):
    """Each row divided by the sum of all elements, which the survey finds."""

    name, source, summary = "row_sums", "by definition", "rows over the sum"
    blocks = "rows"

    def survey(self, view: TensorView, parameters: JointParameters[Any]) -> float:
        return float(sum(float(delta.sum(dtype=torch.float64)) for delta in view.deltas(0)))

    def merge(
        self, base: torch.Tensor | None, tensors: Sequence[torch.Tensor], parameters: JointParameters[Any]
    ) -> torch.Tensor:
        assert base is not None
        assert base.dim() == 2
        return (tensors[0] - base) / parameters.survey


def joint(base: dict[str, torch.Tensor], others: Sequence[dict[str, torch.Tensor]], method: JointMethod) -> JointMerge:
    whole = StateDict("base", base, {})
    rule = weight_matrices({}, whole.tensors)
    aligned = [align(whole, StateDict(f"model {n}", one, {}), ties=rule.ties) for n, one in enumerate(others)]
    inputs = [JointInput(one, lambda _: NoParameters()) for one in aligned]
    return JointMerge(whole, method, make_plan(whole, aligned, rule), inputs, has_origin=method.base != "model")


def values(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_method_of_ten_lines_merges_state_dicts() -> None:
    base, *others = ({"a.weight": values(3, 4, seed=seed)} for seed in range(4))
    result = hubmerge.merge_state_dicts(base, others, method=Median())
    assert torch.equal(result["a.weight"], torch.stack([one["a.weight"] for one in others]).median(0).values)


def test_rows_and_surveys_see_the_whole_tensor_in_blocks() -> None:
    base = {"a.weight": values(300, LARGE // 250, seed=1), "b.bias": values(5, seed=2)}
    one = {name: value + 1 for name, value in base.items()}
    result = hubmerge.merge_state_dicts(base, [one], method=RowSums())
    for name, value in base.items():
        assert torch.allclose(result[name], torch.full_like(value, 1 / value.numel()), rtol=1e-4)


@pytest.mark.parametrize("workers", [1, 3])
def test_files_have_the_values_of_memory_whatever_the_threads(tmp_path: Path, workers: int) -> None:
    base, *others = ({"a.weight": values(2, LARGE, seed=seed), "b.bias": values(9, seed=seed)} for seed in range(3))
    merge = joint(base, others, Median())
    write_joint(merge, merge.plan, tmp_path, max_shard_bytes=4 * LARGE, context=ExecutorContext(workers=workers))
    with open_checkpoint(tmp_path, "written") as written:
        expected = hubmerge.merge_state_dicts(base, others, method=Median())
        assert every(torch.equal(written.read(name), expected[name]) for name in base)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", [Median(), RowSums()], ids=["tensor", "rows"])
def test_a_value_that_is_not_finite_is_named(method: JointMethod, bad: float) -> None:
    base, one = {"a.weight": values(3, 4, seed=0)}, {"a.weight": values(3, 4, seed=1)}
    one["a.weight"][1, 2] = bad
    with pytest.raises(CheckpointError, match=r"models\[0\]: tensor 'a.weight': 1 of 12 values are not finite"):
        hubmerge.merge_state_dicts(base, [one], method=method)


def test_a_value_that_overflows_the_dtype_is_refused() -> None:
    base, one = ({"a.weight": torch.full((3,), 60000.0, dtype=torch.float16)} for _ in range(2))
    with pytest.raises(CheckpointError, match=r"merged tensor 'a.weight' does not fit into torch.float16"):
        hubmerge.merge_state_dicts(
            base, [one], method="linear", parameters={"normalize": False, "weight": 2.0}, recipe={"form": "joint"}
        )


def test_float64_models_are_merged_in_float64() -> None:
    base = {"a.weight": values(3, seed=0).double() + 1e-12}
    result = hubmerge.merge_state_dicts(base, [base], method="linear", recipe={"form": "joint"})
    assert torch.equal(result["a.weight"], base["a.weight"])


def test_statistics_are_averaged_with_the_weights() -> None:
    base, one, two = (
        {name: torch.tensor([value]) for name in ("n.running_mean", "n.running_var", "n.weight")}
        for value in (9.0, 1.0, 4.0)
    )
    own = [{"weight": 2.0}, {"weight": 1.0}]
    result = hubmerge.merge_state_dicts(
        base, [one, two], method="task_arithmetic", own_parameters=own, recipe={"form": "joint"}
    )
    assert result["n.running_var"].tolist() == [2.0]
    assert result["n.weight"].tolist() == [9.0 + 2.0 * -8.0 - 5.0]


def test_numbers_of_an_element_do_not_depend_on_blocks() -> None:
    whole = uniform(7, "a.weight", 1, 0, 100)
    assert torch.equal(torch.cat([uniform(7, "a.weight", 1, start, 25) for start in range(0, 100, 25)]), whole)
    assert not torch.equal(uniform(8, "a.weight", 1, 0, 100), whole)
    assert not torch.equal(uniform(7, "b.weight", 1, 0, 100), whole)
    assert not torch.equal(uniform(7, "a.weight", 2, 0, 100), whole)
    assert whole.dtype == torch.float32
    assert float(whole.min()) >= 0.0
    assert float(whole.max()) < 1.0


def test_every_method_says_where_it_comes_from() -> None:
    assert len({method.name for method in JOINT_METHODS}) == len(JOINT_METHODS)
    for method in JOINT_METHODS:
        assert method.source
        assert method.summary
        assert type(method).__doc__
