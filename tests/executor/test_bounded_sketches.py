"""The sketches in a state are bounded, and long streams still find a checkpoint that is merged twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hubmerge.executor import Merge, StepInput, merge_steps
from hubmerge.executor.stats.similarity import EARLIER_STEPS, RECENT_STEPS, Sketches, joined_row, largest_sketches
from hubmerge.linalg import SKETCH_SIZE, sketch, sketch_cosine
from hubmerge.methods import method_named
from tests.executor.streams import constant, make_base, make_checkpoint, open_stream


def test_the_state_does_not_grow_with_the_stream(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    base = make_base(rng)
    checkpoints = [make_checkpoint(rng, base) for _ in range(11)]
    stream = open_stream(tmp_path, base, [*checkpoints, checkpoints[1]])
    method = method_named("task_arithmetic")
    inputs = [StepInput(one, constant(method.Parameters())) for one in stream.checkpoints]
    merge = Merge(stream.base, method, stream.plan)
    states, state = [], None
    for number, one in enumerate(inputs):
        state, (stats,) = merge_steps(merge, [one], state, tmp_path / f"state-{number}")
        states.append(state)
    sizes = [(one.folder / "parts.safetensors").stat().st_size for one in states]
    assert len(set(sizes[RECENT_STEPS:])) == 1
    keys = set(states[-1].manifest.parts)
    assert keys == {"sketch/earlier", *(f"sketch/{step}" for step in (9, 10, 11, 12))}
    specs = largest_sketches(12, len(stream.plan.merged))
    assert specs == sum(4 * int(np.prod(part.shape)) for key in keys if (part := states[-1].read_part(key)) is not None)
    twin = next(one for one in stats.similarities if one.step == 2)
    assert twin.cosine == pytest.approx(1.0, abs=0.05)
    assert twin.layers == {}
    assert [one.step for one in stats.similarities] == list(range(1, 12))
    others = [one.cosine for one in stats.similarities if one.step != 2]
    assert max(abs(cosine) for cosine in others if cosine is not None) < 0.5
    together, all_stats = merge_steps(merge, inputs, None, tmp_path / "together")
    assert together.manifest == states[-1].manifest
    assert all_stats[-1].similarities == stats.similarities


def test_steps_of_the_first_version_keep_all_sketches(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    base = make_base(rng)
    stream = open_stream(tmp_path, base, [make_checkpoint(rng, base) for _ in range(7)])
    method = method_named("task_arithmetic")
    inputs = [StepInput(one, constant(method.Parameters())) for one in stream.checkpoints]
    merge = Merge(stream.base, method, stream.plan)
    older, _ = merge_steps(merge, inputs[:6], None, tmp_path / "older", older_steps=6)
    assert set(older.manifest.parts) == {f"sketch/{step}" for step in range(1, 7)}
    newer, (stats,) = merge_steps(merge, inputs[6:], older, tmp_path / "newer", older_steps=6)
    assert set(newer.manifest.parts) == {"sketch/earlier", *(f"sketch/{step}" for step in range(4, 8))}
    assert [one.step for one in stats.similarities] == [1, 2, 3, 4, 5, 6]
    across, _ = merge_steps(merge, inputs, None, tmp_path / "across", older_steps=6)
    assert across.manifest == newer.manifest


def test_the_oldest_sketches_are_dropped() -> None:
    rows, names = torch.ones(2, 1 + SKETCH_SIZE), ["a", "b"]
    sketches = Sketches()
    for step in range(1, EARLIER_STEPS + RECENT_STEPS + 11):
        assert [spec.name for spec in sketches.specs_after([step], 2)] == list(
            sketches.added(step, rows, names).parts()
        )
        sketches = sketches.added(step, rows, names)
    assert list(sketches.recent) == [71, 72, 73, 74]
    assert list(sketches.earlier) == list(range(11, 71))


def test_a_joined_sketch_keeps_the_cosine_of_small_tensors() -> None:
    """Small tensors are their own sketches: equal ones of different names would add up without further signs."""
    rng = np.random.default_rng(7)
    names = [f"tensor {number}" for number in range(150)]
    shared = rng.standard_normal(64)
    vectors = [
        [shared * sign + 0.1 * rng.standard_normal(64) for sign in signs] for signs in rng.choice([-1, 1], (2, 150))
    ]
    joined = []
    for tensors in vectors:
        found = [torch.from_numpy(tensor) for tensor in tensors]
        rows = torch.stack(
            [torch.cat([one.norm()[None].float(), sketch(n, one)]) for n, one in zip(names, found, strict=True)]
        )
        joined.append(joined_row(rows, names))
    first, second = (np.concatenate(tensors) for tensors in vectors)
    exact = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    estimate = sketch_cosine(joined[0][1:], joined[1][1:], float(joined[0][0]), float(joined[1][0]))
    assert estimate == pytest.approx(exact, abs=0.12)
