"""Methods that read moments, against their definitions over all task vectors, and the algebra of their states."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hubmerge.executor import Merge, ReadOut, StepInput, merge_steps
from hubmerge.executor.state import MergeState
from hubmerge.linalg import pack_triangle, packed_length, unpack_triangle
from hubmerge.methods import METHODS, method_named
from hubmerge.methods.others import adaptive_scale
from tests.executor.streams import StateDict, Stream, constant, make_base, make_checkpoint, merged_values, open_stream

Vectors = Sequence[np.ndarray]
READERS = ("wudi", "iso_c", "subspace_boost", "spectrum", "ace", "sums")
WEIGHTS = (1.0, 0.5, 2.0, 1.0)


def random_stream(folder: Path, order: Sequence[int] = (0, 1, 2, 3)) -> tuple[Stream, StateDict, list[StateDict]]:
    rng = np.random.default_rng(5)
    base = make_base(rng)
    checkpoints = [make_checkpoint(rng, base) for _ in range(4)]
    chosen = [checkpoints[number] for number in order]
    return open_stream(folder, base, chosen), base, chosen


def read_all(stream: Stream, state: MergeState, name: str, **values: Any) -> dict[str, np.ndarray]:
    method = method_named(name)
    read_out = ReadOut(method, constant(method.Parameters(**values)))
    return {tensor.name: read_out.delta(state, tensor).numpy() for tensor in stream.plan.merged}


def wudi(vectors: Vectors, ridge: float = 0.1) -> np.ndarray:
    """Return the minimum of the loss with its ridge, from the normal equations over all task vectors."""
    moved = [vector for vector in vectors if vector.any()]
    if not moved:
        return np.zeros_like(vectors[0])
    units = [vector / np.linalg.norm(vector) for vector in moved]
    gram = sum(unit.T @ unit for unit in units)
    target = sum(vector @ (unit.T @ unit) for vector, unit in zip(moved, units, strict=True))
    pull = ridge * np.trace(gram) / len(gram)
    mean = sum(vectors) / len(vectors)
    return np.linalg.solve((gram + pull * np.eye(len(gram))).T, (target + pull * mean).T).T


def wudi_adam(vectors: Vectors, steps: int = 300, rate: float = 1e-5) -> np.ndarray:
    """Return the released form: torch's Adam on the loss over all task vectors, from their sum."""
    stack = torch.from_numpy(np.stack(vectors))
    merged = torch.nn.Parameter(stack.sum(0))
    adam = torch.optim.Adam([merged], lr=rate)
    norms = (stack**2).sum(dim=(1, 2))
    for _ in range(steps):
        adam.zero_grad()
        acting = (merged - stack) @ stack.transpose(1, 2)
        ((acting**2).sum(dim=(1, 2)) / norms).sum().backward()
        adam.step()
    return merged.detach().numpy()


def spectral(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Vectors], np.ndarray]:
    def merged(vectors: Vectors) -> np.ndarray:
        left, values, right = np.linalg.svd(sum(vectors), full_matrices=False)
        kept = values > 1e-12 * values[0]
        new = change(values[kept])
        return (left[:, kept] * new) @ right[kept]

    return merged


def boosted(values: np.ndarray) -> np.ndarray:
    first = int(np.flatnonzero(np.cumsum(values) >= 0.1 * values.sum())[0])
    return 0.7 * np.maximum(values, values[first])


ORACLES: Mapping[str, tuple[str, dict[str, Any], Callable[[Vectors], np.ndarray]]] = {
    "wudi": ("wudi", {}, wudi),
    "wudi, little ridge": ("wudi", {"ridge": 0.01}, lambda vectors: wudi(vectors, 0.01)),
    "wudi, much ridge": ("wudi", {"ridge": 1e12}, lambda vectors: np.mean(vectors, axis=0)),
    "wudi, adam": ("wudi", {"solver": "adam"}, wudi_adam),
    "iso_c": ("iso_c", {}, spectral(lambda s: 1.5 * np.full_like(s, s.mean()))),
    "spectrum": ("spectrum", {"scaling": 1.0}, spectral(lambda s: s**0.5 * s.mean() / (s**0.5).mean())),
    "spectrum, 1": ("spectrum", {"scaling": 1.0, "power": 1.0}, lambda vectors: np.sum(vectors, axis=0)),
    "sums": ("sums", {"scaling": 0.5}, lambda vectors: 0.5 * np.mean(vectors, axis=0)),
    "sums, sum": ("sums", {"matrices": "sum"}, lambda vectors: np.sum(vectors, axis=0)),
    "subspace_boost": ("subspace_boost", {"beta": 0.1, "scaling": 0.7}, spectral(boosted)),
}


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stream, list[dict[str, np.ndarray]], MergeState]:
    folder = tmp_path_factory.mktemp("moments")
    stream, base, checkpoints = random_stream(folder)
    state = stream.merge(folder / "states", "wudi")[-1][0]
    vectors = [{name: one[name] - base[name] for name in base} for one in checkpoints]
    return stream, vectors, state


@pytest.mark.parametrize("case", ORACLES)
def test_read_outs_agree_with_all_task_vectors(
    merged: tuple[Stream, list[dict[str, np.ndarray]], MergeState], case: str
) -> None:
    stream, vectors, state = merged
    name, values, expected = ORACLES[case]
    found = read_all(stream, state, name, **values)
    assert found.keys() == {tensor.name for tensor in stream.plan.merged} != set()
    for tensor in stream.plan.merged:
        own = [vector[tensor.name] for vector in vectors]
        if not any(vector.any() for vector in own):
            assert not found[tensor.name].any()
            continue
        if case == "wudi, adam" and not all(vector.any() for vector in own):
            continue
        wanted = expected(own) if tensor.action == "merge-matrix" else sum(own) / len(own)
        assert np.linalg.norm(found[tensor.name] - wanted) <= 1e-9 * np.linalg.norm(wanted), tensor.name


@pytest.mark.parametrize("others", ["mean", "sum", "keep", "adaptive"])
def test_other_tensors(merged: tuple[Stream, list[dict[str, np.ndarray]], MergeState], others: str) -> None:
    stream, vectors, state = merged
    factor = {"mean": 0.25, "sum": 1.0, "keep": 0.0, "adaptive": 1.0 / adaptive_scale(state.manifest.norms)}[others]
    found = read_all(stream, state, "wudi", others=others)
    for name in ("norm.weight", "embed.weight", "temperature"):
        wanted = factor * sum(vector[name] for vector in vectors)
        assert np.allclose(found[name], wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", READERS)
def test_the_order_does_not_matter_and_any_state_can_be_read_by_any_method(tmp_path: Path, name: str) -> None:
    stream, _, _ = random_stream(tmp_path / "a")
    turned, _, _ = random_stream(tmp_path / "b", (2, 0, 3, 1))
    one = stream.merge(tmp_path / "one", "wudi")[-1][0]
    other = turned.merge(tmp_path / "other", name)[-1][0]
    assert one.manifest.method == other.manifest.method == "moments"
    found, expected = read_all(turned, other, name), read_all(stream, one, name)
    for tensor, values in expected.items():
        assert np.linalg.norm(found[tensor] - values) <= 1e-10 * np.linalg.norm(values), tensor


@pytest.mark.parametrize("name", READERS)
def test_the_written_model_is_base_plus_read_out(tmp_path: Path, name: str) -> None:
    stream, base, _ = random_stream(tmp_path / "models")
    state = stream.merge(tmp_path / "states", name, steps=2)[-1][0]
    method = method_named(name)
    values = merged_values(stream, state, tmp_path / "out", read_out=ReadOut(method, constant(method.Parameters())))
    found = read_all(stream, state, name)
    assert any(delta.any() for delta in found.values())
    for tensor, delta in found.items():
        assert np.array_equal(values[tensor], base[tensor] + delta)


def test_a_matrix_that_nobody_moved_keeps_the_base_model(tmp_path: Path) -> None:
    stream, _, _ = random_stream(tmp_path / "models")
    state = stream.merge(tmp_path / "states", "wudi", steps=2)[-1][0]
    for name in READERS:
        assert not read_all(stream, state, name)["block.frozen.weight"].any()


def test_weights_count_like_repeated_entries(tmp_path: Path) -> None:
    stream, _, _ = random_stream(tmp_path / "a", (0, 1))
    doubled, _, _ = random_stream(tmp_path / "b", (0, 1, 1))
    weighted = stream.merge(tmp_path / "one", "wudi", steps=1, parameters={"weight": 1.0})[-1][0]
    weighted = stream.merge(tmp_path / "two", "wudi", previous=weighted, parameters={"weight": 2.0})[-1][0]
    plain = doubled.merge(tmp_path / "three", "wudi")[-1][0]
    found, expected = read_all(stream, weighted, "wudi"), read_all(doubled, plain, "wudi")
    assert found.keys() == expected.keys()
    assert any(values.any() for values in expected.values())
    for tensor, values in expected.items():
        assert np.linalg.norm(found[tensor] - values) <= 1e-10 * np.linalg.norm(values), tensor


@pytest.mark.parametrize("side", [1, 2, 7])
def test_triangles(side: int) -> None:
    half = torch.randn(side, side, dtype=torch.float64)
    matrix = half + half.T
    packed = pack_triangle(matrix)
    assert packed.shape == (packed_length(side),)
    assert torch.equal(unpack_triangle(packed, side), matrix)


@pytest.mark.parametrize("others", ["mean", "sum", "keep", "adaptive"])
@pytest.mark.parametrize("name", ["opcm", "adaptive_scale", "null_space_filter", "nufilt"])
def test_other_tensors_of_folds(tmp_path: Path, name: str, others: str) -> None:
    stream, base, checkpoints = random_stream(tmp_path / "models", (0, 1))
    values = {"others": others, **({"scaling": "adaptive"} if name == "null_space_filter" else {})}
    state = stream.merge(tmp_path / "states", name, parameters=values)[-1][0]
    method = method_named(name)
    parameters = method.Parameters(**values)
    variant = method.variant_for(parameters)
    read_out = ReadOut(variant, constant(parameters)) if variant.reads_state else None
    written = merged_values(stream, state, tmp_path / "out", read_out=read_out)
    lam = state.scale
    own_scale = 1.0 if name == "nufilt" else lam
    assert np.allclose(
        written["block.wide.weight"] - base["block.wide.weight"], state.read("block.wide.weight").numpy() / own_scale
    )
    total = sum(one["norm.weight"] - base["norm.weight"] for one in checkpoints)
    adaptive = adaptive_scale(state.manifest.norms)
    divided = {"sum": own_scale if name == "null_space_filter" else 1.0, "mean": 2.0, "adaptive": adaptive}
    wanted = 0.0 * total if others == "keep" else total / divided[others]
    assert np.allclose(written["norm.weight"] - base["norm.weight"], wanted, atol=1e-12)


REVOKING = [method.name for method in METHODS if method.revokes]


@pytest.mark.parametrize("name", REVOKING)
def test_a_revoked_checkpoint_was_never_there(tmp_path: Path, name: str) -> None:
    stream, base, _ = random_stream(tmp_path / "a", (0, 1, 2))
    without, _, _ = random_stream(tmp_path / "b", (0, 2))
    method = method_named(name)
    parameters = constant(method.Parameters())
    merge = Merge(stream.base, method, stream.plan)
    inputs = [StepInput(one, parameters) for one in stream.checkpoints]
    inputs.append(StepInput(stream.checkpoints[1], parameters, -1))
    state, stats = merge_steps(merge, inputs, None, tmp_path / "state")
    expected = without.merge(tmp_path / "states", method)[-1][0]
    assert stats[-1].revoked
    assert state.manifest.norms.count == 2
    assert math.isclose(state.scale, expected.scale, rel_tol=1e-10)
    found = merged_values(stream, state, tmp_path / "found", read_out=merge.read_out(inputs[0]))
    wanted = merged_values(without, expected, tmp_path / "wanted", read_out=merge.read_out(inputs[0]))
    for tensor, values in wanted.items():
        delta = np.linalg.norm(values - base[tensor])
        assert np.linalg.norm(found[tensor] - values) <= 1e-10 * float(np.maximum(delta, 1e-6)), tensor


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_matrix_that_only_revoked_checkpoints_moved_is_the_base_models(tmp_path: Path, dtype: torch.dtype) -> None:
    """Rounding is left in the sums; it must not be taken for the change of a checkpoint."""
    name, rng = "block.square.weight", np.random.default_rng(5)
    base = make_base(rng)
    checkpoints = [make_checkpoint(rng, base) for _ in range(3)]
    checkpoints[2][name] = base[name]
    stream, method = open_stream(tmp_path, base, checkpoints), method_named("wudi")
    inputs = [StepInput(one, constant(method.Parameters())) for one in stream.checkpoints]
    inputs += [StepInput(one, inputs[0].parameters_for, -1) for one in stream.checkpoints[:2]]
    state, _ = merge_steps(Merge(stream.base, method, stream.plan, dtype), inputs, None, tmp_path / "state")
    rest = state.read_part(f"gram/{name}")
    assert rest is not None
    assert rest.any()
    moved = np.linalg.norm(checkpoints[0][name] - base[name])
    for reader in READERS:
        left = np.linalg.norm(read_all(stream, state, reader)[name]) / moved
        assert left <= (1e-12 if dtype == torch.float64 else 1e-4), (reader, left)


def test_methods_that_project_do_not_revoke() -> None:
    assert {"opcm", "magmax", "ties", "dop", "nufilt", "null_space_filter"}.isdisjoint(REVOKING)
