"""The executor, on files, against the literal recursion on whole state dicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hubmerge.executor.state import MergeState
from hubmerge.executor.state_writer import StateSummary, StateWriter
from hubmerge.methods import Norms
from tests import oracle
from tests.executor.streams import (
    MATRICES,
    SHAPES,
    StateDict,
    make_base,
    make_checkpoint,
    merged_values,
    open_stream,
)


def make_values(kind: str) -> tuple[StateDict, list[StateDict]]:
    rng = np.random.default_rng(list(KINDS).index(kind))
    base = make_base(rng)
    checkpoints = [make_checkpoint(rng, base) for _ in range(8)]
    return KINDS[kind](base, checkpoints)


def scaled(factor: float, base: StateDict, stream: list[StateDict]) -> tuple[StateDict, list[StateDict]]:
    """Task vectors `factor` times as long, around a base of that size: nothing is lost to rounding."""
    return (
        {name: value * factor for name, value in base.items()},
        [{name: value * factor for name, value in checkpoint.items()} for checkpoint in stream],
    )


KINDS = {
    "random": lambda base, stream: (base, stream),
    "the same checkpoint twice": lambda base, stream: (base, [*stream[:2], stream[1], *stream[3:]]),
    "the base among the checkpoints": lambda base, stream: (base, [stream[0], base, *stream[2:]]),
    "the base first": lambda base, stream: (base, [base, *stream[1:]]),
    "tiny": lambda base, stream: scaled(1e-25, base, stream),
    "huge": lambda base, stream: scaled(1e25, base, stream),
    "one long task vector": lambda base, stream: (
        base,
        [*stream[:3], {n: base[n] + 1e4 * (stream[3][n] - base[n]) for n in base}, *stream[4:]],
    ),
    "one short task vector": lambda base, stream: (
        base,
        [*stream[:3], {n: base[n] + 1e-4 * (stream[3][n] - base[n]) for n in base}, *stream[4:]],
    ),
    "layers thawed one by one": lambda base, stream: (
        base,
        [{n: c[n] if k <= t else base[n] for k, n in enumerate(base)} for t, c in enumerate(stream)],
    ),
}


def state_of(folder: Path, step: oracle.OracleStep, base: StateDict, lengths: list[float]) -> MergeState:
    """Save the oracle's own state as one of ours: accumulated delta = λ (θ - θ_0)."""
    with StateWriter(folder, {name: SHAPES[name] for name in base}) as writer:
        deltas = {name: step.scale * (step.merged[name] - base[name]) for name in base}
        for name, delta in deltas.items():
            writer.write(name, torch.from_numpy(np.array(delta)))
        zero = {name: np.zeros_like(delta) for name, delta in deltas.items()}
        return writer.finish(
            StateSummary(
                method="opcm",
                step=len(lengths),
                chain="",
                norms=Norms(oracle.distance(deltas, zero), tuple(lengths)),
                scale=step.scale,
                tensor_norms={name: (float(np.linalg.norm(delta)), 0.0) for name, delta in deltas.items()},
            )
        )


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_from_the_oracles_own_state(tmp_path: Path, kind: str) -> None:
    base, checkpoints = make_values(kind)
    stream = open_stream(tmp_path, base, checkpoints)
    steps = oracle.opcm(base, checkpoints, MATRICES)
    lengths = [oracle.distance(checkpoint, base) for checkpoint in checkpoints]
    previous = None
    for number, expected in enumerate(steps, start=1):
        [(state, figures)] = stream.merge(tmp_path / f"step{number}", previous=previous, steps=number)
        result = merged_values(stream, state, tmp_path / f"merged{number}")
        assert oracle.distance(result, expected.merged) <= 1e-10 * oracle.distance(expected.merged, base)
        assert state.scale == pytest.approx(expected.scale, rel=1e-10)
        ranks = {tensor.name: tensor.rank for tensor in figures.tensors if tensor.rank is not None}
        assert ranks == (expected.ranks or dict.fromkeys(MATRICES, 0))
        previous = state_of(tmp_path / f"oracle{number}", expected, base, lengths[:number])


@pytest.mark.parametrize("kind", KINDS)
def test_eight_steps(tmp_path: Path, kind: str) -> None:
    base, checkpoints = make_values(kind)
    stream = open_stream(tmp_path, base, checkpoints)
    (state, _), expected = stream.merge(tmp_path / "states")[-1], oracle.opcm(base, checkpoints, MATRICES)[-1]
    result = merged_values(stream, state, tmp_path / "merged")
    assert oracle.distance(result, expected.merged) <= 1e-6 * oracle.distance(expected.merged, base)
    assert state.scale == pytest.approx(expected.scale, rel=1e-6)


@pytest.mark.parametrize(
    "parameters", [{"alpha": 0.0}, {"alpha": 1.0}, {"rank_rule": "fusion_bench"}, {"diagonal": "keep"}]
)
def test_eight_steps_with_other_parameters(tmp_path: Path, parameters: dict[str, Any]) -> None:
    base, checkpoints = make_values("random")
    stream = open_stream(tmp_path, base, checkpoints)
    state, _ = stream.merge(tmp_path / "states", parameters=parameters)[-1]
    expected = oracle.opcm(
        base,
        checkpoints,
        MATRICES,
        float(parameters.get("alpha", 0.5)),
        rule=str(parameters.get("rank_rule", "paper")),
        diagonal=str(parameters.get("diagonal", "remove")),
    )[-1]
    result = merged_values(stream, state, tmp_path / "merged")
    bound = 1e-12 if parameters.get("diagonal") == "keep" else 1e-6
    assert oracle.distance(result, expected.merged) <= bound * oracle.distance(expected.merged, base)


def test_values_in_single_precision_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    base = {name: value.astype(np.float32) for name, value in make_base(rng).items()}
    checkpoints = [
        {name: value.astype(np.float32) for name, value in make_checkpoint(rng, base).items()} for _ in range(4)
    ]
    stream = open_stream(tmp_path, base, checkpoints, dtype=torch.float32)
    state, _ = stream.merge(tmp_path / "states")[-1]
    expected = oracle.opcm(base, checkpoints, MATRICES)[-1].merged
    result = merged_values(stream, state, tmp_path / "merged")
    for name in base:
        # One rounding to single precision, of a value that is right to far more digits.
        assert np.abs(result[name] - expected[name]).max() <= 0.51 * np.spacing(
            np.abs(expected[name]).max(), dtype=np.float32
        )


METHODS = {
    "weight_average": lambda base, stream: oracle.weight_average(base, stream),
    "adaptive_scale": lambda base, stream: oracle.adaptive_scale(base, stream),
    "task_arithmetic": lambda base, stream: oracle.task_arithmetic(base, stream, 0.3),
    "ties": lambda base, stream: oracle.ties(base, stream, 0.2, 0.3),
    "magmax": lambda base, stream: oracle.magmax(base, stream, 0.5),
}


@pytest.mark.parametrize("method", METHODS)
def test_the_other_methods(tmp_path: Path, method: str) -> None:
    base, checkpoints = make_values("random")
    stream = open_stream(tmp_path, base, checkpoints)
    state, _ = stream.merge(tmp_path / "states", method)[-1]
    expected = METHODS[method](base, checkpoints)
    result = merged_values(stream, state, tmp_path / "merged")
    assert oracle.distance(result, expected) <= 1e-12 * oracle.distance(expected, base)


def test_figures_by_hand(tmp_path: Path) -> None:
    base, checkpoints = make_values("random")
    stream = open_stream(tmp_path, base, checkpoints)
    (first, _), (second, figures) = stream.merge(tmp_path / "states", steps=2)
    vector = {name: checkpoints[1][name] - base[name] for name in base}
    before = {name: checkpoints[0][name] - base[name] for name in base}
    product = sum(np.sum(vector[name] * before[name]) for name in base)
    assert figures.step == 2
    assert figures.checkpoint == "c2"
    assert figures.task_vector_norm == pytest.approx(oracle.distance(checkpoints[1], base), rel=1e-13)
    assert figures.cosine == pytest.approx(
        product / oracle.distance(checkpoints[0], base) / figures.task_vector_norm, abs=1e-13
    )
    removed = 0.0
    for tensor in figures.tensors:
        name = tensor.name
        assert tensor.task_vector_norm == pytest.approx(float(np.linalg.norm(vector[name])), rel=1e-13)
        accumulated = second.read(name).numpy()
        assert tensor.accumulated_norm == pytest.approx(float(np.linalg.norm(accumulated)), rel=1e-13)
        change = accumulated - first.read(name).numpy()
        lost = float(np.sum(vector[name] ** 2) - np.sum(change**2))
        assert tensor.removed_share == pytest.approx(lost / max(np.sum(vector[name] ** 2), 1e-300), abs=1e-12)
        assert tensor.directions == (min(SHAPES[name]) if name in MATRICES else None)
        assert (tensor.rank is not None) == (name in MATRICES)
        removed += lost
    assert figures.removed_share == pytest.approx(removed / figures.task_vector_norm**2, abs=1e-12)
    assert 0.0 < figures.removed_share < 1.0


def test_a_stream_of_one_gives_back_its_checkpoint(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        folder = tmp_path / str(dtype)
        base = make_base(rng)
        stream = open_stream(folder, base, [make_checkpoint(rng, base)], dtype=dtype)
        [(state, _)] = stream.merge(folder / "states")
        result = merged_values(stream, state, folder / "merged")
        for name in base:
            assert np.array_equal(result[name], stream.checkpoints[0].read(name).to(torch.float64).numpy())
