"""Products and equations of several matrices together, as on an accelerator; the arithmetic runs on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hubmerge.checkpoints import MatrixRule, align, make_plan, open_checkpoint
from hubmerge.errors import CheckpointError
from hubmerge.executor import ExecutorContext, InMemoryState, Merge, ReadOut, StepInput, merge_steps, write_merged
from hubmerge.executor.parallel.batching import batch_tensors
from hubmerge.linalg import pack_triangle, unpack_triangle
from hubmerge.methods import method_named
from hubmerge.methods.moments import together
from hubmerge.methods.moments.together import equal_groups
from hubmerge.methods.moments.wudi import WudiParameters
from tests.executor.streams import StateDict, Stream, constant, loaded, save
from tests.matrices import decaying

SHAPES: dict[str, tuple[int, ...]] = {
    "a.query.weight": (12, 12),
    "a.frozen.weight": (12, 12),
    "a.up.weight": (30, 12),
    "a.down.weight": (12, 30),
    "b.query.weight": (12, 12),
    "b.up.weight": (30, 12),
    "b.down.weight": (12, 30),
    "experts": (3, 12, 20),
    "bias": (12,),
}
MATRICES = frozenset(SHAPES) - {"bias"}
ALONE, BATCHES = ExecutorContext(workers=1), ExecutorContext(workers=1, batches=True)
READERS: list[tuple[str, dict[str, Any]]] = [
    ("wudi", {}),
    ("wudi", {"solver": "adam", "learning_rate": 1e-3, "steps": 20}),
    ("iso_c", {}),
    ("spectrum", {}),
    ("subspace_boost", {}),
    ("ace", {}),
    ("ace", {"refined": 0.3}),
    ("sums", {}),
]


def draw(rng: np.random.Generator) -> StateDict:
    def values(shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) == 3:
            return np.stack([decaying(rng, *shape[1:]) for _ in range(shape[0])])
        return decaying(rng, *shape) if len(shape) == 2 else rng.standard_normal(shape)

    return {**{name: values(shape) for name, shape in SHAPES.items()}, "a.frozen.weight": np.ones((12, 12))}


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    """Return a stream in which two matrices are stored as (inputs, outputs), and one tensor has several experts."""
    folder, rng = tmp_path_factory.mktemp("together"), np.random.default_rng(4)
    base = open_checkpoint(save(folder / "base", draw(rng)), "base")
    checkpoints = [align(base, open_checkpoint(save(folder / name, draw(rng)), name)) for name in "abc"]
    rule = MatrixRule(MATRICES, "as the test says", {}, transposed=frozenset({"a.down.weight", "b.up.weight"}))
    return Stream(base, checkpoints, make_plan(base, checkpoints, rule))


def merged(stream: Stream, context: ExecutorContext, **values: Any) -> InMemoryState:
    """Merge all, and take the second checkpoint out again."""
    method, parameters = method_named("wudi"), constant(WudiParameters(weight=0.5, **values))
    inputs = [StepInput(checkpoint, parameters) for checkpoint in stream.checkpoints]
    inputs.append(replace(inputs[1], sign=-1))
    return merge_steps(Merge(stream.base, method, stream.plan), inputs, None, None, context=context)[0]


def tensors(state: InMemoryState) -> Mapping[str, torch.Tensor]:
    """Return accumulated deltas and state parts by name."""
    return {**state._accumulated, **state._parts}


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-14), ("float32", 1e-6)])
def test_products_together_are_those_of_single_matrices(stream: Stream, precision: str, tolerance: float) -> None:
    assert [len(batch.tensors) for batch in batch_tensors(stream.plan.merged, together=True)] == [8, 1]
    alone, batches = (tensors(merged(stream, context, precision=precision)) for context in (ALONE, BATCHES))
    assert alone.keys() == batches.keys() > SHAPES.keys()
    for name, values in alone.items():
        assert float((batches[name] - values).abs().max()) <= tolerance * max(1.0, float(values.abs().max()))


@pytest.mark.parametrize(("method", "values"), READERS, ids=[f"{name} {values}" for name, values in READERS])
def test_models_read_together_are_those_of_single_matrices(
    stream: Stream, tmp_path: Path, method: str, values: dict[str, Any]
) -> None:
    state, reader = merged(stream, ALONE), method_named(method)
    read_out = ReadOut(reader, constant(reader.Parameters(**values)))
    models, drifts = [], []
    for context in (ALONE, BATCHES):
        folder = tmp_path / f"batches-{context.batches}"
        drifts.append(write_merged(stream.base, state, stream.plan, folder, read_out=read_out, context=context).drift)
        models.append(loaded(folder))
    assert drifts[1] == pytest.approx(drifts[0], rel=1e-12)
    expected, found = models
    base = {name: stream.base.read(name).numpy() for name in SHAPES}
    for name, wanted in expected.items():
        assert np.linalg.norm(found[name] - wanted) <= 1e-12 * (np.linalg.norm(wanted) + 1.0)
        assert np.array_equal(wanted, base[name]) == (name == "a.frozen.weight")
    assert np.array_equal(found["a.frozen.weight"], base["a.frozen.weight"])


def test_error_of_a_batch_names_the_tensor(stream: Stream) -> None:
    """One system cannot be solved, so the matrices are read one by one."""
    state, reader = merged(stream, ALONE), method_named("wudi")
    broken = {key: -part if key == "gram/b.down.weight" else part for key, part in state._parts.items()}
    state._parts = broken
    (batch, _) = batch_tensors(stream.plan.merged, together=True)
    read_out = ReadOut(reader, constant(reader.Parameters()))
    with pytest.raises(CheckpointError, match=r"tensor 'b\.down\.weight'") as caught:
        read_out.deltas(state, batch.tensors)
    assert caught.value.context.tensor == "b.down.weight"


def test_groups_are_equal_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "ELEMENTS_TOGETHER", 10)
    sizes = [4, 6, 4, 4, 20, 4, 20]
    groups = list(equal_groups(range(7), lambda place: sizes[place], lambda place: sizes[place]))
    assert groups == [[0, 2], [3, 5], [1], [4], [6]]


def test_triangles_of_a_stack_are_those_of_each_matrix() -> None:
    values = torch.arange(2 * 5 * 5, dtype=torch.float64).view(2, 5, 5)
    stack = values + values.mT
    packed = pack_triangle(stack)
    assert torch.equal(packed, torch.stack([pack_triangle(matrix) for matrix in stack]))
    assert torch.equal(unpack_triangle(packed, 5), stack)
