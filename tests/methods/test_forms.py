"""Variants of methods: the forms of mergekit, and parameters of filter and adapter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from hubmerge.errors import HubmergeError
from hubmerge.linalg import project
from hubmerge.linalg.projection import Diagonal
from hubmerge.methods import TensorInput, method_named
from hubmerge.methods.mergekit_ties import TiesParameters, largest_elements
from merge_recipes.parameters import parameters_from
from tests import oracle, projection_oracle
from tests.matrices import AWKWARD, awkward_pairs, decaying
from tests.methods.test_methods import MATRICES, Fold, StateDict, folded, starts_of_a, stream


def weighted(
    name: str, base: StateDict, checkpoints: list[StateDict], weights: list[float], **others: Any
) -> StateDict:
    fold = Fold(method_named(name), base, weight=weights[0], **others)
    steps = zip(checkpoints, weights, strict=True)
    return [fold.take(checkpoint, weight=weight, **others) for checkpoint, weight in steps][-1]


def agree(result: StateDict, expected: StateDict, base: StateDict, bound: float = 1e-12) -> bool:
    return oracle.distance(result, expected) <= bound * oracle.distance(expected, base)


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.5, 2.0, 0.1], [1.0, -0.4, 0.3]])
def test_linear_with_weights(weights: list[float]) -> None:
    base, checkpoints = stream(3, seed=3)
    assert agree(weighted("linear", base, checkpoints, weights), oracle.linear(base, checkpoints, weights), base)


def test_linear_without_normalize_is_refused() -> None:
    with pytest.raises(ValidationError):
        method_named("linear").Parameters.model_validate({"normalize": False})


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.5, 2.0, 0.1], [0.5, 0.5, -1.0]])
def test_task_arithmetic_as_mergekit_has_it(weights: list[float], normalize: bool) -> None:
    base, checkpoints = stream(3, seed=4)
    if normalize and sum(weights) == 0.0:
        expected = oracle.mergekit_task_arithmetic(base, checkpoints, weights, normalize=False, factor=0.7)
    else:
        expected = oracle.mergekit_task_arithmetic(base, checkpoints, weights, normalize=normalize, factor=0.7)
    result = weighted("task_arithmetic", base, checkpoints, weights, normalize=normalize, **{"lambda": 0.7})
    assert agree(result, expected, base)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("density", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("weights", [[1.0] * 5, [0.5, 2.0, 0.1, 1.0, 1.0], [1.0, -0.4, 0.3, -1.0, 0.2]])
def test_ties_as_mergekit_has_it(weights: list[float], density: float, normalize: bool) -> None:
    base, checkpoints = stream(5, seed=5)
    others = {"density": density, "normalize": normalize, "lambda": 1.3}
    result = weighted("ties", base, checkpoints, weights, **others)
    expected = oracle.mergekit_ties(base, checkpoints, weights, density, normalize=normalize, factor=1.3)
    assert agree(result, expected, base)


def test_an_element_that_cancels_counts_as_positive() -> None:
    base = {"b": np.zeros(3)}
    values = [{"b": np.array([1.0, -2.0, 3.0])}, {"b": np.array([-1.0, 2.0, 0.0])}]
    assert weighted("ties", base, values, [1.0, 1.0])["b"].tolist() == [1.0, 2.0, 3.0]


def test_trimming_keeps_the_first_of_equals_and_never_nothing() -> None:
    vector = torch.tensor([1.0, -1.0, 1.0, 0.5], dtype=torch.float64)
    assert largest_elements(vector, 0.5).tolist() == [1.0, -1.0, 0.0, 0.0]
    assert largest_elements(vector, 0.01).tolist() == [1.0, 0.0, 0.0, 0.0]
    assert largest_elements(vector.reshape(2, 2), 0.75).tolist() == [[1.0, -1.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("ties", {"weight": 1.0, "scaling": 0.3}, "give only one of them"),
        ("ties", {"normalize": True}, "needs a `weight` for every entry"),
        ("ties", {"lambda": 2.0}, "lambda belongs to mergekit's form"),
        ("task_arithmetic", {"weight": 1.0, "scaling": 0.3}, "give only one of them"),
        ("task_arithmetic", {"lambda": 2.0}, "lambda belongs to mergekit's form"),
    ],
)
def test_forms_are_not_mixed(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        method_named(name).Parameters(**parameters)


def test_continual_ties_has_one_density_for_the_whole_model() -> None:
    method = method_named("ties")
    vector = torch.ones(2, 2, dtype=torch.float64)
    prepared = method.prepare_step(lambda look: [look(vector, vector)], TiesParameters(density=0.5), step=2)
    with pytest.raises(HubmergeError, match=r"density 0\.2 for some tensors and 0\.5 for others"):
        prepared.absorb(TensorInput(vector, vector, TiesParameters(), step=2))


def test_continual_ties_without_a_survey_takes_the_tensor_for_the_whole_model() -> None:
    generator = torch.Generator().manual_seed(1)
    accumulated, vector = (torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    method, tensor = method_named("ties"), TensorInput(accumulated, vector, TiesParameters(), step=2)
    prepared = method.prepare_step(lambda look: [look(accumulated, vector)], tensor.parameters, step=2)
    assert torch.equal(method.absorb(tensor).accumulated, prepared.absorb(tensor).accumulated)
    assert not torch.equal(method.absorb(tensor).accumulated, accumulated + 0.3 * vector)


@pytest.mark.parametrize("rank", [1, 4, 200])
def test_null_space_filter_at_other_ranks(rank: int) -> None:
    base, checkpoints = stream(4, seed=6)
    result = folded("null_space_filter", base, checkpoints, rank=rank, others="sum")
    assert agree(result, projection_oracle.null_space(base, checkpoints, MATRICES, rank, others="sum"), base, 1e-10)


def test_null_space_filter_leaves_what_acts_on_protected_directions() -> None:
    rng = np.random.default_rng(1)
    base = {"a.weight": np.zeros((12, 20))}
    first, second = decaying(rng, 12, 20), decaying(rng, 12, 20)
    fold = Fold(method_named("null_space_filter"), base, rank=5)
    before = fold.take({"a.weight": first})["a.weight"]
    after = fold.take({"a.weight": second})["a.weight"]
    protected = np.linalg.svd(first)[2][:5].T
    assert np.allclose(after @ protected, before @ protected, atol=1e-14)
    assert not np.allclose(after, before, atol=1e-2)


def test_null_space_filter_with_the_adaptive_scale_has_the_mean_length() -> None:
    base, checkpoints = stream(4, seed=7)
    result = folded("null_space_filter", base, checkpoints, rank=3, others="sum", scaling="adaptive")
    mean = np.mean([oracle.distance(checkpoint, base) for checkpoint in checkpoints])
    assert oracle.distance(result, base) == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize(("rank", "task_rank", "steps"), [(3, 2, 50), (6, 8, 20), (2, 30, 1), (4, 4, 0)])
def test_nufilt_with_other_parameters(rank: int, task_rank: int, steps: int) -> None:
    base, checkpoints = stream(3, seed=8)
    options = {
        "rank": rank,
        "task_rank": task_rank,
        "steps": steps,
        "learning_rate": 0.01,
        "adapter_rank": 5,
        "seed": 3,
    }
    result = folded("nufilt", base, checkpoints, **options)
    expected = projection_oracle.nufilt(
        base, checkpoints, MATRICES, starts_of_a(5, 3), rank=rank, task_rank=task_rank, steps=steps, rate=0.01
    )
    assert agree(result, expected, base, 1e-9)
    if steps == 0:
        assert agree(result, projection_oracle.null_space(base, checkpoints, MATRICES, rank), base, 1e-10)


def test_nufilt_comes_nearer_to_the_new_checkpoint_where_it_acts_most() -> None:
    base, checkpoints = stream(2, seed=9)
    options = {"rank": 3, "task_rank": 2, "adapter_rank": 8}

    def misses(method: str, **parameters: Any) -> float:
        result = folded(method, base, checkpoints, **parameters)["a.weight"]
        wanted = np.linalg.svd(checkpoints[1]["a.weight"] - base["a.weight"])[2][:2].T
        return float(np.linalg.norm((result - checkpoints[1]["a.weight"]) @ wanted))

    trained = misses("nufilt", steps=400, learning_rate=0.01, **options)
    assert trained < 0.5 * misses("null_space_filter", rank=3)


def test_dop_settles_between_the_two_and_follows_its_weight() -> None:
    base, checkpoints = stream(2, seed=10)

    def distances(**parameters: Any) -> list[float]:
        result = folded("dop", base, checkpoints, beta=1.0, steps=300, learning_rate=1e-3, **parameters)
        return [float(np.linalg.norm(result["a.weight"] - c["a.weight"])) for c in checkpoints]

    old, new = distances(alpha=0.99), distances(alpha=0.01)
    assert old[0] < old[1]
    assert new[1] < new[0]


@pytest.mark.parametrize("diagonal", ["remove", "keep"])
@pytest.mark.parametrize("kind", AWKWARD)
def test_alpha_auto_agrees_with_trying_every_rank(kind: str, diagonal: Diagonal) -> None:
    accumulated, task_vector = awkward_pairs(np.random.default_rng(0))[kind]
    unit = np.abs(task_vector).max() or 1.0
    expected, rank = oracle.project(
        accumulated / (np.abs(accumulated).max() or 1.0), task_vector / unit, "auto", diagonal=diagonal
    )
    first, second = (torch.from_numpy(np.array(values)) for values in (accumulated, task_vector))
    result = project(first, second, "auto", diagonal=diagonal)
    assert result.rank == rank
    assert np.linalg.norm(result.kept.numpy() / unit - expected) <= 1e-10 * np.linalg.norm(task_vector / unit)


def test_alpha_auto_protects_nothing_from_the_same_again_and_much_from_a_stranger() -> None:
    rng = np.random.default_rng(2)
    first = torch.from_numpy(np.array(decaying(rng, 40, 60)))
    stranger = torch.from_numpy(rng.standard_normal((40, 60)))
    assert project(first, 2.0 * first, "auto", diagonal="keep").rank == 0
    result = project(first, stranger, "auto", diagonal="keep")
    assert result.rank > 5
    assert result.removed_share < 0.5


@pytest.mark.parametrize("parameters", [{"alpha": "auto"}, {"alpha": "auto", "diagonal": "keep"}])
def test_streams_with_alpha_auto(parameters: dict[str, Any]) -> None:
    base, checkpoints = stream(4, seed=13)
    expected = oracle.opcm(base, checkpoints, MATRICES, **parameters)[-1].merged
    assert agree(folded("opcm", base, checkpoints, **parameters), expected, base, 1e-8)


@pytest.mark.parametrize(("alpha", "count"), [("automatic", 1), (1.5, 1), (-0.1, 1), (True, 1), (None, 1)])
def test_a_wrong_alpha_is_told_once(alpha: object, count: int) -> None:
    with pytest.raises(ValidationError) as caught:
        parameters_from(method_named("opcm").Parameters, {"alpha": alpha})
    assert caught.value.error_count() == count
