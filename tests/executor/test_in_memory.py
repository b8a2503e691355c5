"""States in memory against states in folders, parts of a state, and sketches of task vectors."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hubmerge.errors import CheckpointError
from hubmerge.executor import InMemoryCheckpoint, InMemoryModel, Merge, StepInput, StepStats, merge_steps
from hubmerge.executor.state import State, load_state
from hubmerge.executor.stats.similarity import layer_of
from hubmerge.linalg import sketch, sketch_cosine
from hubmerge.methods import METHODS, method_named
from tests import oracle
from tests.executor.streams import (
    Stream,
    constant,
    make_base,
    make_checkpoint,
    merged_values,
    open_stream,
)


def make(folder: Path, count: int = 3, **options: Any) -> Stream:
    rng = np.random.default_rng(17)
    base = make_base(rng)
    return open_stream(folder, base, [make_checkpoint(rng, base) for _ in range(count)], **options)


FORMS: dict[str, tuple[str, dict[str, Any]]] = {method.name: (method.name, {}) for method in METHODS}
FORMS |= {
    "ties, mergekit": ("ties", {"weight": 0.7, "density": 0.4}),
    "task_arithmetic, mergekit": ("task_arithmetic", {"weight": 0.7, "normalize": True}),
}


@pytest.mark.parametrize("form", FORMS)
def test_in_memory_every_digit_is_the_same(tmp_path: Path, form: str) -> None:
    name, values = FORMS[form]
    stream = make(tmp_path, dtype=torch.float32)
    method = method_named(name)
    parameters = method.Parameters(**values)
    written = stream.merge(tmp_path / "states", method, parameters=values)
    names = [tensor.name for tensor in stream.plan.merged]
    base = InMemoryCheckpoint(stream.base, list(stream.base.tensors))
    state: State | None = None
    for checkpoint, (expected, figures) in zip(stream.checkpoints, written, strict=True):
        held = InMemoryCheckpoint(checkpoint, names)
        incoming = StepInput(held, constant(parameters))
        state, (found,) = merge_steps(Merge(base, method, stream.plan), [incoming], state, None)
        assert found == figures
        assert StepStats.from_dict(json.loads(json.dumps(found.to_dict()))) == figures
        assert state.scale == expected.scale
        assert state.manifest.parts.keys() == expected.manifest.parts.keys()
        for key in expected.manifest.parts:
            ours, theirs = state.read_part(key), expected.read_part(key)
            assert ours is not None
            assert theirs is not None
            assert torch.equal(ours, theirs)
        for tensor in names:
            assert torch.equal(state.read(tensor), expected.read(tensor))
    assert state is not None
    model = InMemoryModel(stream.base, state, stream.plan)
    on_disk = merged_values(stream, written[-1][0], tmp_path / "merged")
    assert on_disk.keys() == model.tensors.keys()
    for tensor, value in on_disk.items():
        assert np.array_equal(model.read(tensor).to(torch.float64).numpy(), value)


def test_what_is_held_cannot_be_changed_through_what_is_read(tmp_path: Path) -> None:
    stream = make(tmp_path)
    held = InMemoryCheckpoint(stream.checkpoints[0], ["norm.weight"])
    held.read("norm.weight").zero_()
    assert held.read("norm.weight").any()
    method = method_named("opcm")
    incoming = StepInput(stream.checkpoints[0], constant(method.Parameters()))
    state, _ = merge_steps(Merge(stream.base, method, stream.plan), [incoming], None, None)
    state.read("norm.weight").zero_()
    assert state.read("norm.weight").any()
    assert state.first_difference({"norm.weight": (24,)}) is not None
    assert state.read_part("sketch/2") is None


def test_parts_survive_on_disk_and_are_checked(tmp_path: Path) -> None:
    stream = make(tmp_path)
    values = {"weight": 1.0, "density": 0.5}
    through = stream.merge(tmp_path / "through", "ties", parameters=values)
    [_, (state, _)] = stream.merge(tmp_path / "resumed", "ties", parameters=values, steps=2)
    reopened = load_state(state.folder)
    reopened.verify()
    [(last, _)] = stream.merge(tmp_path / "resumed", "ties", parameters=values, previous=reopened)
    for name in last.manifest.tensors:
        assert torch.equal(last.read(name), through[-1][0].read(name))
    with pytest.raises(CheckpointError, match="another variant of ties"):
        stream.merge(tmp_path / "resumed", "ties", previous=reopened)
    with (state.folder / "parts.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        byte = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(CheckpointError, match=r"parts.safetensors: tensor .* does not match its checksum"):
        load_state(state.folder).verify()
    (state.folder / "parts.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"parts\.safetensors"):
        load_state(state.folder)


def test_similarities_to_every_earlier_checkpoint(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    base = make_base(rng)
    first, second = make_checkpoint(rng, base), make_checkpoint(rng, base)
    twin = {name: base[name] + 0.5 * (first[name] - base[name]) for name in base}
    stream = open_stream(tmp_path, base, [first, second, twin, base])
    [_, _, (_, figures), (_, nothing)] = stream.merge(tmp_path / "states")
    to_first, to_second = figures.similarities
    assert (to_first.step, to_second.step) == (1, 2)
    assert to_first.cosine == pytest.approx(1.0, abs=0.05)
    exact = sum(np.sum((twin[n] - base[n]) * (second[n] - base[n])) for n in base)
    exact /= oracle.distance(twin, base) * oracle.distance(second, base)
    assert to_second.cosine == pytest.approx(exact, abs=0.1)
    assert set(to_first.layers) == {"outside the layers"}
    assert [similarity.cosine for similarity in nothing.similarities] == [None, None, None]


def test_without_sketches_nothing_is_compared(tmp_path: Path) -> None:
    stream = make(tmp_path, 2)
    [(state, _), (_, figures)] = stream.merge(tmp_path / "states", sketches=False)
    assert figures.similarities == ()
    assert not (state.folder / "parts.safetensors").exists()
    [(_, later)] = stream.merge(tmp_path / "states", previous=state)
    assert later.similarities == ()


def test_layers_are_named_up_to_their_number() -> None:
    names = {
        "vision_model.encoder.layers.3.mlp.fc1.weight": "vision_model.encoder.layers.3",
        "model.layers.11.mlp.experts.4.up_proj.weight": "model.layers.11",
        "encoder.block.0.layer.1.DenseReluDense.wi.weight": "encoder.block.0",
        "vision_model.post_layernorm.weight": "outside the layers",
        "logit_scale": "outside the layers",
    }
    assert {name: layer_of(name) for name in names} == names


@pytest.mark.parametrize("shape", [(1000,), (1022,), (300, 70), (1021, 40), (2042, 600)])
def test_sketches_keep_cosines(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(7)
    errors = []
    for number in range(12):
        first, noise = (torch.from_numpy(rng.standard_normal(shape)) for _ in range(2))
        second = first + noise * float(rng.uniform(0.2, 5.0))
        one, other = (sketch(f"tensor {number}", tensor) for tensor in (first, second))
        estimate = sketch_cosine(one, other, float(first.norm()), float(second.norm()))
        assert estimate is not None
        errors.append(estimate - float(torch.sum(first * second) / first.norm() / second.norm()))
    if np.prod(shape) <= 1021:
        assert np.abs(errors).max() <= 1e-6
    else:
        assert np.std(errors) <= 0.07


def test_a_sketch_is_linear_seeded_by_the_name_and_does_not_depend_on_the_layout() -> None:
    first, second = (torch.arange(6000, dtype=torch.float64).reshape(60, 100).sin() + k for k in range(2))
    assert torch.equal(sketch("a", first), sketch("a", first.T.contiguous().T))
    assert not torch.equal(sketch("a", first), sketch("b", first))
    assert torch.allclose(sketch("a", first + second), sketch("a", first) + sketch("a", second), atol=1e-4)


def test_sketches_beyond_single_precision_give_no_cosine() -> None:
    huge = torch.full((2000,), 1e200, dtype=torch.float64)
    rows = sketch("a", huge)
    assert sketch_cosine(rows, rows, 1e200, 1e200) is None


def test_figures_without_similarities_are_read(tmp_path: Path) -> None:
    stream = make(tmp_path, 1)
    [(_, figures)] = stream.merge(tmp_path / "states")
    data = dataclasses.asdict(figures)
    assert data["similarities"] == ()
    told = figures.to_dict()
    del told["similarities"]
    assert StepStats.from_dict(told) == figures
