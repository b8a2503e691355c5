"""Every method, folded over a stream of task vectors, against its literal oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from hubmerge.errors import HubmergeError
from hubmerge.linalg import frobenius_norm, total_norm
from hubmerge.methods import (
    METHODS,
    Method,
    Norms,
    ReadInput,
    TensorInput,
    method_named,
)
from hubmerge.methods.base import Result
from hubmerge.methods.selection import kth_smallest_magnitudes
from tests import oracle, projection_oracle
from tests.checks import every
from tests.matrices import decaying

StateDict = dict[str, np.ndarray]
SHAPES: dict[str, tuple[int, ...]] = {"a.weight": (12, 20), "b.weight": (16, 9), "b.bias": (16,), "c": (2, 3, 4)}
MATRICES = {"a.weight", "b.weight"}


def stream(count: int, seed: int = 0) -> tuple[StateDict, list[StateDict]]:
    rng = np.random.default_rng(seed)
    base = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    checkpoints = [
        {
            name: base[name] + 1e-2 * (decaying(rng, *shape) if name in MATRICES else 0.1 * rng.standard_normal(shape))
            for name, shape in SHAPES.items()
        }
        for _ in range(count)
    ]
    return base, checkpoints


class Fold:
    """The fold in its plainest form: all tensors in memory."""

    def __init__(self, method: Method, base: StateDict, **parameters: Any) -> None:
        self.parameters = method.Parameters(**parameters)
        self.method = method.variant_for(self.parameters)
        self.parts: dict[str, dict[str, torch.Tensor]] = {}
        self.base = {name: torch.from_numpy(value) for name, value in base.items()}
        self.accumulated = {name: torch.zeros_like(value) for name, value in self.base.items()}
        self.lengths: list[float] = []
        self.scale = 1.0

    def take(self, checkpoint: StateDict, **parameters: Any) -> StateDict:
        """Return the merged model after one more checkpoint; `parameters` replace those of the fold."""
        if parameters:
            self.parameters = self.method.Parameters(**parameters)
        vectors = {name: torch.from_numpy(checkpoint[name]) - start for name, start in self.base.items()}
        self.lengths.append(total_norm(frobenius_norm(vector) for vector in vectors.values()))
        step = len(self.lengths)
        method = self.method
        if method.surveys_model:

            def sweep(look: Callable[[torch.Tensor, torch.Tensor], Result]) -> Iterable[Result]:
                return [look(self.accumulated[name], vectors[name]) for name in sorted(vectors)]

            method = method.prepare_step(sweep, self.parameters, step=step)
        for name, vector in vectors.items():
            before = self.accumulated[name].clone(), vector.clone()
            inputs = self.accumulated[name], vector
            self.accumulated[name] = self.absorb(method, name, inputs, step)
            assert every(torch.equal(old, new) for old, new in zip(before, inputs, strict=True))
        norms = Norms(total_norm(map(frobenius_norm, self.accumulated.values())), tuple(self.lengths))
        self.scale = method.scale(norms, self.parameters)
        return {name: (start + self.delta(name, norms)).numpy() for name, start in self.base.items()}

    def delta(self, name: str, norms: Norms) -> torch.Tensor:
        """Return the merged delta."""
        if not self.method.reads_state:
            return self.accumulated[name] / self.scale
        state = ReadInput(self.accumulated[name], self.parts[name], self.parameters, norms)
        return self.method.read_matrix(state) if name in MATRICES else self.method.read(state)

    def absorb(self, method: Method, name: str, inputs: tuple[torch.Tensor, torch.Tensor], step: int) -> torch.Tensor:
        shape = inputs[1].shape
        matrix = name in MATRICES and method.has_matrix_form
        shapes = method.matrix_parts((shape[0], shape[1])) if matrix else method.state_parts(tuple(shape))
        zeros = {part: torch.zeros(shape, dtype=torch.float64) for part, shape in shapes.items()}
        tensor = TensorInput(*inputs, self.parameters, step, self.parts.get(name, zeros))
        absorbed = method.absorb_matrix(tensor) if name in MATRICES else method.absorb(tensor)
        assert {part: tuple(values.shape) for part, values in absorbed.parts.items()} == shapes
        self.parts[name] = dict(absorbed.parts)
        return absorbed.accumulated


def folded(name: str, base: StateDict, checkpoints: Sequence[StateDict], **parameters: Any) -> StateDict:
    fold = Fold(method_named(name), base, **parameters)
    return [fold.take(checkpoint) for checkpoint in checkpoints][-1]


ORACLES: dict[str, Callable[[StateDict, list[StateDict]], StateDict]] = {
    "opcm": lambda base, stream: oracle.opcm(base, stream, MATRICES)[-1].merged,
    "adaptive_scale": oracle.adaptive_scale,
    "weight_average": oracle.weight_average,
    "task_arithmetic": lambda base, stream: oracle.task_arithmetic(base, stream, 0.3),
    "ties": lambda base, stream: oracle.ties(base, stream, 0.2, 0.3),
    "magmax": lambda base, stream: oracle.magmax(base, stream, 0.5),
    "linear": lambda base, stream: oracle.linear(base, stream, [1.0] * len(stream)),
    "null_space_filter": lambda base, stream: projection_oracle.null_space(base, stream, MATRICES, 128),
    "nufilt": lambda base, stream: projection_oracle.nufilt(
        base, stream, MATRICES, starts_of_a(64), rank=128, task_rank=8, steps=50, rate=1e-3
    ),
    "dop": lambda base, stream: projection_oracle.dop(
        base, stream, MATRICES, alpha=0.8, beta=0.999, share=0.99999, steps=200, rate=1e-4
    ),
}


def starts_of_a(rank: int, seed: int = 0) -> StateDict:
    """Return the initial values of NUFILT's adapter."""
    return {
        name: 0.02
        * torch.randn(rank, SHAPES[name][1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64).numpy()
        for name in MATRICES
    }


def test_every_method_has_an_oracle_here_and_a_source() -> None:
    readers = {method.name for method in METHODS if method.reads_state}  # see test_moments.py
    assert {method.name for method in METHODS} == set(ORACLES) | readers
    assert len({method.name for method in METHODS}) == len(METHODS)
    for method in METHODS:
        assert "arXiv:" in method.source or "openreview.net/" in method.source
        assert method.Parameters() == method.Parameters()
        for field in method.Parameters.model_fields.values():
            assert field.description


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("name", ORACLES)
def test_agrees_with_the_oracle(name: str, count: int) -> None:
    base, checkpoints = stream(count, seed=count)
    result, expected = folded(name, base, checkpoints), ORACLES[name](base, checkpoints)
    assert oracle.distance(result, expected) <= 1e-9 * oracle.distance(expected, base)


@pytest.mark.parametrize("name", ["opcm", "adaptive_scale", "weight_average"])
def test_a_stream_of_one_gives_that_checkpoint(name: str) -> None:
    base, checkpoints = stream(1)
    result = folded(name, base, checkpoints)
    assert every(np.allclose(result[key], checkpoints[0][key], rtol=1e-15, atol=1e-15) for key in base)


@pytest.mark.parametrize("name", ORACLES)
def test_a_checkpoint_equal_to_the_base_adds_nothing_to_the_accumulated_delta(name: str) -> None:
    base, checkpoints = stream(1)
    fold = Fold(method_named(name), base)
    fold.take(base)
    assert fold.scale > 0.0
    assert not any(value.any() for value in fold.accumulated.values())
    fold.take(checkpoints[0])
    first = {key: value.clone() for key, value in fold.accumulated.items()}
    fold.take(base)
    if name in {"linear", "dop"}:
        # What is accumulated is a mean already, and nothing is averaged in.
        share = 2 / 3 if name == "linear" else 1 / 2
        assert every(torch.allclose(value, share * first[key], rtol=1e-14) for key, value in fold.accumulated.items())
    elif name == "ties":
        # The running delta is itself trimmed and added once more: that is the continual form.
        assert any(not torch.equal(value, first[key]) for key, value in fold.accumulated.items())
    else:
        assert every(torch.equal(value, first[key]) for key, value in fold.accumulated.items())


def test_opcm_scale_of_orthogonal_task_vectors_is_the_root_of_their_number() -> None:
    base = {"w.weight": np.zeros((12, 12))}
    fold = Fold(method_named("opcm"), base)
    for step in range(1, 7):
        vector = np.zeros((12, 12))
        vector[2 * step - 2, 2 * step - 1] = 0.5
        fold.take({"w.weight": vector})
        assert fold.scale == pytest.approx(step**0.5, rel=1e-12)


def test_opcm_merged_delta_is_as_long_as_the_mean_task_vector() -> None:
    base, checkpoints = stream(4)
    fold = Fold(method_named("opcm"), base)
    for step, checkpoint in enumerate(checkpoints, start=1):
        merged = fold.take(checkpoint)
        mean = np.mean([oracle.distance(c, base) for c in checkpoints[:step]])
        assert oracle.distance(merged, base) == pytest.approx(mean, rel=1e-12)


def test_opcm_where_the_sum_cancels() -> None:
    base = {"b": np.zeros(3)}
    fold = Fold(method_named("opcm"), base)
    fold.take({"b": np.array([1.0, 2.0, 3.0])})
    assert np.array_equal(fold.take({"b": np.array([-1.0, -2.0, -3.0])})["b"], np.zeros(3))
    assert np.isfinite(fold.take({"b": np.array([1.0, 0.0, 0.0])})["b"]).all()


@pytest.mark.parametrize("density", [0.01, 0.2, 0.5, 1.0])
def test_ties_at_other_densities(density: float) -> None:
    base, checkpoints = stream(4, seed=9)
    result = folded("ties", base, checkpoints, density=density, scaling=0.7)
    expected = oracle.ties(base, checkpoints, density, 0.7)
    assert oracle.distance(result, expected) <= 1e-13 * oracle.distance(expected, base)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_ties_gives_elements_that_cancel_the_sign_of_the_majority(sign: float) -> None:
    base = {"b": np.zeros(6)}
    checkpoints = [{"b": sign * np.array([4.0, 3, 2, 1, 1, 1])}, {"b": sign * np.array([-1.2, 1, 1, 1, -0.3, 2])}]
    result = folded("ties", base, checkpoints, density=1.0, scaling=0.3)
    expected = oracle.ties(base, checkpoints, 1.0, 0.3)
    assert np.allclose(result["b"], expected["b"], rtol=0.0, atol=1e-15)
    assert np.sign(result["b"][4]) == sign


def test_magmax_gives_equals_to_the_later_one() -> None:
    base = {"b": np.zeros(2)}
    assert folded("magmax", base, [{"b": np.array([2.0, -1.0])}, {"b": np.array([-2.0, 0.5])}])["b"].tolist() == [
        -1.0,
        -0.5,
    ]


@pytest.mark.parametrize("density", [1e-6, 0.2, 0.77, 1.0])
def test_selection_by_digits_is_exact(density: float) -> None:
    rng = np.random.default_rng(4)
    wide = rng.standard_normal(150_000) * 10.0 ** rng.integers(-30, 30, 150_000)
    narrow = np.r_[1.0 + 1e-9 * rng.standard_normal(100_000), np.zeros(40_000), np.full(10_000, -1.0)]
    pieces = [
        (torch.from_numpy(a), torch.from_numpy(b)) for a, b in zip(np.split(wide, 3), np.split(narrow, 3), strict=False)
    ]
    found = kth_smallest_magnitudes(lambda look: [look(*piece) for piece in pieces], density)
    place = max(1, 150_000 - int(150_000 * density))
    assert found.accumulated == np.sort(np.abs(wide))[place - 1]
    assert found.task_vector == np.sort(np.abs(narrow))[place - 1]


def test_selection_among_equals() -> None:
    equal = torch.full((100_000,), 0.1, dtype=torch.float64)
    zeros = torch.zeros(100_000, dtype=torch.float64)
    found = kth_smallest_magnitudes(lambda look: [look(equal, zeros)], 0.2)
    assert (found.accumulated, found.task_vector) == (0.1, 0.0)
    assert kth_smallest_magnitudes(lambda look: [], 0.2).accumulated == 0.0


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("opcm", {"alpha": 1.01}),
        ("opcm", {"alpha": float("nan")}),
        ("opcm", {"rank_rule": "other"}),
        ("opcm", {"diagonal": "drop"}),
        ("opcm", {"scaling": 0.3}),
        ("ties", {"density": 0.0}),
        ("magmax", {"scaling": 0.0}),
        ("weight_average", {"alpha": 0.5}),
    ],
)
def test_wrong_parameters_are_refused(name: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        method_named(name).Parameters(**parameters)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(HubmergeError, match="opcmm") as caught:
        method_named("opcmm")
    assert every(method.name in str(caught.value) for method in METHODS)
