"""States of two or three streams add up to that of all their checkpoints, whatever the order, for every such method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hubmerge.errors import CheckpointError
from hubmerge.executor import Merge, ReadOut, StepInput, add_states, merge_steps
from hubmerge.executor.read_out import delta_pieces
from hubmerge.executor.state import MergeState
from hubmerge.executor.stats.similarity import RECENT_STEPS, SKETCH_PREFIX
from hubmerge.methods import METHODS, Method, method_named
from hubmerge.methods.readers import saved_name
from tests.executor.streams import Stream, constant, make_base, make_checkpoint, open_stream
from tests.executor.test_statistics import models, opened

COUNT = 7
ADDING = [method for method in METHODS if method.adds]
WEIGHTS: dict[str, list[float]] = {
    "linear": [1.0, 2.0, 0.5, -0.25, 1.0, 3.0, 1.5],
    "moments": [1.0, 2.0, 0.5, 0.25, 1.0, 3.0, 1.5],
}
_STATES: dict[tuple[str, str], MergeState] = {}
"""States by the name of their kind and the checkpoints in them; methods over moments share theirs."""


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    rng = np.random.default_rng(3)
    base = make_base(rng)
    return open_stream(tmp_path_factory.mktemp("models"), base, [make_checkpoint(rng, base) for _ in range(COUNT)])


def inputs(stream: Stream, method: Method, places: Sequence[int]) -> list[StepInput]:
    weights = WEIGHTS.get(saved_name(method))
    parameters = [method.Parameters(**({} if weights is None else {"weight": weights[place]})) for place in places]
    return [StepInput(stream.checkpoints[place], constant(one)) for place, one in zip(places, parameters, strict=True)]


def state_of(stream: Stream, method: Method, places: Sequence[int], folder: Path) -> MergeState:
    key = (saved_name(method), "-".join(map(str, places)))
    if key not in _STATES:
        merge = Merge(stream.base, method, stream.plan)
        _STATES[key] = merge_steps(merge, inputs(stream, method, places), None, folder.with_name("-".join(key)))[0]
    return _STATES[key]


def merged(stream: Stream, method: Method, state: MergeState, last: StepInput) -> dict[str, torch.Tensor]:
    variant = method.variant_for(last.parameters_for(""))
    read_out = ReadOut(variant, last.parameters_for) if variant.reads_state else None
    return {one.name: torch.cat(list(delta_pieces(state, one, read_out))) for one in stream.plan.merged}


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    apart = sum(float((one[name] - other[name]).norm()) ** 2 for name in other) ** 0.5
    return apart / sum(float(values.norm()) ** 2 for values in other.values()) ** 0.5


@pytest.mark.parametrize("method", ADDING, ids=lambda method: method.name)
def test_parts_add_up_to_the_whole_in_any_order(stream: Stream, tmp_path: Path, method: Method) -> None:
    merge, last = Merge(stream.base, method, stream.plan), inputs(stream, method, [COUNT - 1])[0]
    whole = state_of(stream, method, range(COUNT), tmp_path)
    parts = [state_of(stream, method, places, tmp_path) for places in ([0, 1, 2], [3], [4, 5, 6])]
    expected = merged(stream, method, whole, last)
    for order in ((0, 1, 2), (2, 0, 1)):
        state, stats = add_states(merge, [parts[place] for place in order], last, tmp_path / "added")
        assert distance(merged(stream, method, state, last), expected) < 1e-10
        assert (state.step, state.manifest.method) == (COUNT, whole.manifest.method)
        assert state.scale == pytest.approx(whole.scale, rel=1e-12)
        assert stats.accumulated_norm == pytest.approx(whole.manifest.accumulated_norm, rel=1e-12)
        assert sorted(state.manifest.task_vector_norms) == sorted(whole.manifest.task_vector_norms)
        state.verify()


def test_parts_have_the_sketches_of_the_whole(stream: Stream, tmp_path: Path) -> None:
    method = method_named("adaptive_scale")
    merge, last = Merge(stream.base, method, stream.plan), inputs(stream, method, [COUNT - 1])[0]
    whole = state_of(stream, method, range(COUNT), tmp_path)
    parts = [state_of(stream, method, places, tmp_path) for places in ([0], [1, 2, 3, 4, 5], [6])]
    state, _ = add_states(merge, parts, last, tmp_path / "added")
    sketches = {key for key in whole.manifest.parts if key.startswith(SKETCH_PREFIX)}
    assert len(sketches) == RECENT_STEPS + 1
    assert {key: state.manifest.parts.get(key) for key in sketches} == {
        key: whole.manifest.parts[key] for key in sketches
    }


def test_a_combined_state_is_extended_and_revoked_from(stream: Stream, tmp_path: Path) -> None:
    method = method_named("wudi")
    merge, steps = Merge(stream.base, method, stream.plan), inputs(stream, method, range(COUNT))
    parts = [state_of(stream, method, places, tmp_path) for places in ([0, 1], [2, 3])]
    state, _ = add_states(merge, parts, steps[3], tmp_path / "added")
    taken_out = replace(steps[1], sign=-1)
    found, _ = merge_steps(merge, [steps[4], taken_out], state, tmp_path / "extended")
    expected = state_of(stream, method, [0, 2, 3, 4], tmp_path)
    assert distance(merged(stream, method, found, steps[4]), merged(stream, method, expected, steps[4])) < 1e-10


@pytest.mark.parametrize("name", ["wudi", "linear"])
def test_statistics_are_averaged_over_all_parts(tmp_path: Path, name: str) -> None:
    base, others = models()
    stream, method = opened(tmp_path / "models", base, others), method_named(name)
    last = StepInput(stream.checkpoints[-1], constant(method.Parameters()))
    steps = [StepInput(one, constant(method.Parameters())) for one in stream.checkpoints]
    merge = Merge(stream.base, method, stream.plan)
    whole, _ = merge_steps(merge, steps, None, tmp_path / "whole")
    parts = [merge_steps(merge, own, None, tmp_path / str(len(own)))[0] for own in (steps[:3], steps[3:])]
    state, stats = add_states(merge, parts, last, tmp_path / "added")
    assert state.manifest.averaged == whole.manifest.averaged
    assert stats.averaged == len(state.manifest.averaged) > 0
    for averaged in whole.manifest.averaged:
        torch.testing.assert_close(state.read(averaged), whole.read(averaged), rtol=1e-12, atol=0.0)
    assert stats.accumulated_norm == pytest.approx(whole.manifest.accumulated_norm, rel=1e-12)


def test_states_with_other_tensors_are_refused(stream: Stream, tmp_path: Path) -> None:
    method = method_named("wudi")
    last = inputs(stream, method, [1])[0]
    one = state_of(stream, method, [0], tmp_path)
    fewer = replace(stream.plan, tensors=stream.plan.tensors[1:])
    other = merge_steps(Merge(stream.base, method, fewer), [last], None, tmp_path / "fewer")[0]
    with pytest.raises(CheckpointError, match="other tensors") as caught:
        add_states(Merge(stream.base, method, stream.plan), [one, other], last, tmp_path / "added")
    assert caught.value.context.tensor is not None
    assert not (tmp_path / "added").exists()
