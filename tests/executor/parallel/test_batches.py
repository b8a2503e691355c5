"""Batches of tensors as on an accelerator; the arithmetic runs on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hubmerge.checkpoints import MatrixRule, PlannedTensor, align, make_plan, open_checkpoint
from hubmerge.errors import CheckpointError
from hubmerge.executor import DEFAULT_CONTEXT, StepInput
from hubmerge.executor.absorb.batch_work import StepBatch
from hubmerge.executor.absorb.step_input import Merge, TensorStep
from hubmerge.executor.in_memory import InMemoryStateWriter
from hubmerge.executor.parallel.batching import BATCH_ELEMENTS, TensorBatch, batch_tensors
from hubmerge.executor.reading import read_task_vector, send_task_vector
from hubmerge.linalg import batched_eigenpairs
from hubmerge.methods import method_named
from tests.checks import every
from tests.executor.streams import SHAPES, Stream, constant, make_base, make_checkpoint, open_stream, save
from tests.matrices import decaying

CPU = torch.device("cpu")


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    rng = np.random.default_rng(0)
    base = make_base(rng)
    return open_stream(tmp_path / "stream", base, [make_checkpoint(rng, base) for _ in range(4)])


def planned(name: str, *shape: int, action: Any = "merge-matrix") -> PlannedTensor:
    return PlannedTensor(name, shape, torch.float32, torch.float32, action, "")


def test_matrices_with_equal_shorter_sides_share_a_batch() -> None:
    tensors = [
        planned("query", 768, 768),
        planned("bias", 768, action="merge-other"),
        planned("up", 3072, 768),
        planned("head", 512, 768),
        planned("down", 768, 3072),
        planned("experts", 4, 768, 1024),
        planned("embed", 5000, 768, action="merge-other"),
    ]
    alone = batch_tensors(tensors, together=False)
    assert [batch.places for batch in alone] == [(place,) for place in range(7)]
    together = batch_tensors(tensors, together=True)
    assert [batch.places for batch in together] == [(0, 2, 4, 5), (1,), (3,), (6,)]
    assert together[0].elements == 768 * (768 + 3072 + 3072 + 4 * 1024)
    assert together[0].flops == sum(tensors[place].flops for place in (0, 2, 4, 5))


def test_batches_of_several_tensors_are_bounded() -> None:
    side = 1 << 10
    tensors = [planned(f"{number}", side, 4 * side) for number in range(9)]
    tensors.insert(4, planned("large", side, BATCH_ELEMENTS // side + 1))
    found = batch_tensors(tensors, together=True)
    assert [batch.places for batch in found] == [(0, 1, 2, 3), (4,), (5, 6, 7, 8), (9,)]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"alpha": 0.9},
        {"alpha": "auto"},
        {"diagonal": "keep"},
        {"diagonal": "keep", "precision": "float32"},
    ],
)
def test_batches_agree_with_single_tensors(stream: Stream, parameters: dict[str, Any]) -> None:
    """Cover wide and tall matrices, one equal to the base model, and all other tensors."""
    method = method_named("opcm")
    values = constant(method.Parameters(**parameters))
    inputs = [StepInput(checkpoint, values) for checkpoint in stream.checkpoints[:2]]
    merge = Merge(stream.base, method, stream.plan)
    work = StepBatch(merge, inputs, [method] * 2, None, sketches=True, context=DEFAULT_CONTEXT)
    writers = InMemoryStateWriter(SHAPES), InMemoryStateWriter(SHAPES)

    def absorb(batch: TensorBatch, writer: InMemoryStateWriter) -> list[list[TensorStep]]:
        return work.absorb(batch, writer)

    some = batch_tensors(stream.plan.merged, together=True)
    assert [tensor.name for batch in some for tensor in batch.tensors if len(batch.tensors) > 1] == [
        "block.tall.weight",
        "block.wide.weight",
    ]
    batched = {
        place: steps for batch in some for place, steps in zip(batch.places, absorb(batch, writers[0]), strict=True)
    }
    alone = [absorb(batch, writers[1])[0] for batch in batch_tensors(stream.plan.merged, together=False)]
    for place, (tensor, expected) in enumerate(zip(stream.plan.merged, alone, strict=True)):
        together = batched[place]
        ours, theirs = (writer._accumulated[tensor.name] for writer in writers)
        assert float(torch.linalg.vector_norm(ours - theirs)) <= 1e-10 * float(torch.linalg.vector_norm(theirs))
        assert [step.stats.rank for step in together] == [step.stats.rank for step in expected]
        assert every(torch.equal(a.sketch, b.sketch) for a, b in zip(together, expected, strict=True))


def test_experts_in_one_batch_agree_with_single_tensors(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)

    def experts() -> dict[str, np.ndarray]:
        shapes = {"up": (12, 30), "down": (30, 12)}
        return {name: np.stack([decaying(rng, *shape) for _ in range(3)]) for name, shape in shapes.items()}

    base = open_checkpoint(save(tmp_path / "base", experts()))
    checkpoints = [align(base, open_checkpoint(save(tmp_path / name, experts()))) for name in "ab"]
    plan = make_plan(base, checkpoints, MatrixRule(frozenset({"up", "down"}), "", {}))
    method = method_named("opcm")
    inputs = [StepInput(checkpoint, constant(method.Parameters())) for checkpoint in checkpoints]
    merge = Merge(base, method, plan)
    work = StepBatch(merge, inputs, [method] * 2, None, sketches=False, context=DEFAULT_CONTEXT)
    (batch,) = batch_tensors(plan.merged, together=True)
    found = []
    for some in ([batch], batch_tensors(plan.merged, together=False)):
        writer = InMemoryStateWriter({tensor.name: tensor.shape for tensor in plan.merged})
        results = [steps for one in some for steps in work.absorb(one, writer)]
        found.append(([steps[-1].stats.expert_ranks for steps in results], writer._accumulated))
    assert found[0][0] == found[1][0]
    for name, expected in found[1][1].items():
        assert torch.allclose(found[0][1][name], expected, rtol=0.0, atol=1e-13)


def test_batched_eigenpairs_skips_zero_and_tiny_matrices() -> None:
    rng = np.random.default_rng(2)
    square, wide = (torch.from_numpy(decaying(rng, *shape)) for shape in ((8, 8), (8, 20)))
    found = batched_eigenpairs([square, torch.zeros(8, 9, dtype=torch.float64), wide.T, square * 1e-200])
    assert [pairs is None for pairs in found] == [False, True, False, True]
    assert found[2] is not None
    assert torch.allclose(found[2][0], torch.linalg.svdvals(wide) ** 2)
    assert batched_eigenpairs([]) == []


def test_sent_task_vector_equals_the_one_read(stream: Stream) -> None:
    for name in SHAPES:
        expected, length = read_task_vector(stream.base, stream.checkpoints[0], name)
        found, sent = send_task_vector(stream.base, stream.checkpoints[0], name, input_dtype=None, device=CPU)
        assert torch.equal(found, expected)
        assert sent == pytest.approx(length, rel=1e-14)


def test_error_names_tensor_with_values_that_are_not_finite(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    base = make_base(rng)
    broken = make_checkpoint(rng, base)
    broken["conv.weight"][1, 2, 0, 1] = np.nan
    stream = open_stream(tmp_path, base, [broken])
    with pytest.raises(CheckpointError, match=r"c1: tensor 'conv\.weight': 1 of 48 values are not finite"):
        send_task_vector(stream.base, stream.checkpoints[0], "conv.weight", input_dtype=None, device=CPU)
