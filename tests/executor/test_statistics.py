"""Statistics are the weighted mean of the checkpoints, with every method, and never become negative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from hubmerge import merge_state_dicts
from hubmerge.checkpoints import MatrixRule, align, make_plan, open_checkpoint
from hubmerge.checkpoints.planning.class_buffers import buffers_by_name
from hubmerge.errors import CheckpointError
from hubmerge.executor import DEFAULT_CONTEXT, InMemoryModel, Merge, StepInput, merge_steps
from hubmerge.executor.state import load_state
from hubmerge.methods import METHODS, method_named
from hubmerge.verify.comparison import compare_tensors
from tests.checks import every
from tests.executor.parallel.members import together
from tests.executor.parallel.test_processes import merge_all, merge_with
from tests.executor.streams import StateDict, Stream, constant, merged_values, save

MEAN, VARIANCE = "bn.running_mean", "bn.running_var"
METHOD_NAMES = [method.name for method in METHODS]
COUNT = 8


def models(count: int = COUNT) -> tuple[StateDict, list[StateDict]]:
    """Return a base model with larger variances than all its checkpoints have."""
    rng = np.random.default_rng(5)
    base = {
        "block.a.weight": rng.standard_normal((12, 10)),
        "bn.weight": rng.standard_normal(10),
        MEAN: rng.standard_normal(10),
        VARIANCE: rng.uniform(1.0, 2.0, 10),
    }
    others = []
    for _ in range(count):
        moved = {name: value + 1e-2 * rng.standard_normal(value.shape) for name, value in base.items()}
        moved[VARIANCE] = base[VARIANCE] * rng.uniform(0.0, 0.2, 10)
        others.append(moved)
    return base, others


def opened(folder: Path, base: StateDict, others: Sequence[StateDict], *, averaged: bool = True) -> Stream:
    start = open_checkpoint(save(folder / "base", base), "base")
    buffers = buffers_by_name(start.tensors)
    buffers = buffers if averaged else buffers.counted_as_weights(start.tensors)
    aligned = [
        align(start, open_checkpoint(save(folder / f"c{number}", values), f"c{number}"), buffers=buffers)
        for number, values in enumerate(others, start=1)
    ]
    rule = MatrixRule(frozenset({"block.a.weight"}), "as the test says", {}, buffers=buffers)
    return Stream(start, aligned, make_plan(start, aligned, rule))


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_every_method_averages_statistics_at_every_step(tmp_path: Path, method: str) -> None:
    base, others = models()
    stream = opened(tmp_path / "models", base, others)
    for (state, stats), count in zip(stream.merge(tmp_path, method), range(1, COUNT + 1), strict=True):
        assert stats.averaged == 2
        assert set(state.manifest.averaged) == {MEAN, VARIANCE}
        assert (state.manifest.version, load_state(state.folder).manifest) == (2, state.manifest)
        merged = merged_values(stream, state, tmp_path / f"merged{count}")
        for name in (MEAN, VARIANCE):
            mean = np.mean([values[name] for values in others[:count]], axis=0)
            np.testing.assert_allclose(merged[name], mean, rtol=1e-12)
        assert merged[VARIANCE].min() >= 0.0


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_statistics_change_no_weight_and_no_norm(tmp_path: Path, method: str) -> None:
    base, others = models(3)
    weights = [{name: value for name, value in values.items() if "running" not in name} for values in (base, *others)]
    with_statistics = opened(tmp_path / "with", base, others)
    without = opened(tmp_path / "without", weights[0], weights[1:])
    pairs = zip(with_statistics.merge(tmp_path / "a", method), without.merge(tmp_path / "b", method), strict=True)
    for (state, stats), (plain, expected) in pairs:
        assert plain.manifest.version == 1
        assert "averaged" not in (plain.folder / "state.json").read_text()
        numbers = ("scale", "accumulated_norm", "task_vector_norm", "cosine", "removed_share")
        assert [getattr(stats, number) for number in numbers] == [getattr(expected, number) for number in numbers]
        assert [one.cosine for one in stats.similarities] == [one.cosine for one in expected.similarities]
        for name in weights[0]:
            assert torch.equal(state.read(name), plain.read(name))


WEIGHTS = {
    "linear": ("weight", [1.0, 3.0, 2.0]),
    "task_arithmetic": ("weight", [1.0, 3.0, 2.0]),
    "ties": ("weight", [1.0, 3.0, 2.0]),
    "task_arithmetic, scaled": ("scaling", [0.5, 0.1, 0.3]),
    "ties, scaled": ("scaling", [0.5, 0.1, 0.3]),
    "linear, negative": ("weight", [1.0, -0.9, 2.0]),
    "linear, none at first": ("weight", [0.0, 0.0, 2.0]),
}


@pytest.mark.parametrize("case", list(WEIGHTS))
@pytest.mark.parametrize("at_once", [True, False])
def test_statistics_are_weighted_as_the_entries_are(tmp_path: Path, case: str, *, at_once: bool) -> None:
    name, weights = WEIGHTS[case]
    base, others = models(3)
    stream, method = opened(tmp_path / "models", base, others), method_named(case.partition(",")[0])
    inputs = [
        StepInput(checkpoint, constant(method.Parameters(**{name: weight})))
        for checkpoint, weight in zip(stream.checkpoints, weights, strict=True)
    ]
    merge = Merge(stream.base, method, stream.plan)
    state = None
    batches = [inputs] if at_once and name == "weight" else [[one] for one in inputs]
    for number, batch in enumerate(batches):
        state, _ = merge_steps(merge, batch, state, tmp_path / f"state{number}")
    assert state is not None
    merged = merged_values(stream, state, tmp_path / "merged")
    for tensor in (MEAN, VARIANCE):
        mean = np.average([values[tensor] for values in others], axis=0, weights=np.maximum(weights, 0.0))
        np.testing.assert_allclose(merged[tensor], mean, rtol=1e-12)


def test_the_base_model_counts_where_no_entry_has_a_weight(tmp_path: Path) -> None:
    base, others = models(2)
    stream = opened(tmp_path / "models", base, others)
    *_, (state, _) = stream.merge(tmp_path, "linear", parameters={"weight": 0.0})
    merged = merged_values(stream, state, tmp_path / "merged")
    np.testing.assert_array_equal(merged[VARIANCE], base[VARIANCE])


def test_a_mean_of_tiny_and_zero_variances_is_not_negative(tmp_path: Path) -> None:
    base, others = models(7)
    for number, values in enumerate(others):
        values[VARIANCE] = np.array([0.0, 5e-324, 1e-300, 1e300, 1.0, 1e-8, 0.0, 1e-30, 3.0, 7.0]) * (number % 2)
    stream = opened(tmp_path / "models", base, others)
    for state, _ in stream.merge(tmp_path, "weight_average"):
        assert float(state.read(VARIANCE).min()) >= 0.0


def test_a_limit_that_is_infinite_in_one_model_stays_so(tmp_path: Path) -> None:
    base, others = models(3)
    for values in (base, *others):
        values[MEAN][:2] = (np.inf, -np.inf)
    for values in (others[0], others[2]):
        values[MEAN][1] = 4.0
    others[1][MEAN][0] = 5.0
    stream = opened(tmp_path / "calibrated", base, others)
    *_, (state, stats) = stream.merge(tmp_path, "opcm")
    merged = merged_values(stream, state, tmp_path / "merged")
    np.testing.assert_allclose(merged[MEAN], np.mean([values[MEAN] for values in others], axis=0), rtol=1e-12)
    assert every(np.isfinite((one.task_vector_norm, one.accumulated_norm)).all() for one in stats.tensors)
    model = open_checkpoint(tmp_path / "merged")
    assert compare_tensors(model, model, stream.base).verdict == "same"


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_statistic_that_is_not_finite_in_one_model_is_refused(tmp_path: Path, value: float) -> None:
    base, others = models(2)
    others[1][VARIANCE][4] = value
    stream = opened(tmp_path / "models", base, others)
    with pytest.raises(CheckpointError, match=f"c2: tensor '{VARIANCE}': 1 of 10 values are not finite"):
        stream.merge(tmp_path, "opcm")


@pytest.mark.parametrize("label", ["base", "c2"])
def test_a_model_with_a_negative_variance_is_refused(tmp_path: Path, label: str) -> None:
    base, others = models(2)
    (base if label == "base" else others[1])[VARIANCE][3] = -1e-6
    stream = opened(tmp_path / "models", base, others)
    with pytest.raises(CheckpointError, match=f"{label}: tensor '{VARIANCE}' has a negative value") as raised:
        stream.merge(tmp_path, "weight_average")
    assert raised.value.context.tensor == VARIANCE


def test_a_stream_that_adds_statistics_up_writes_no_negative_variance(tmp_path: Path) -> None:
    base, others = models()
    stream = opened(tmp_path / "models", base, others, averaged=False)
    assert stream.plan.averaged == ()
    *_, (state, stats) = stream.merge(tmp_path, "task_arithmetic")
    assert (state.manifest.version, stats.averaged) == (1, None)
    with pytest.raises(CheckpointError, match=f"merged model of step 8: tensor '{VARIANCE}' would have negative"):
        merged_values(stream, state, tmp_path / "merged")
    with pytest.raises(CheckpointError, match="negative"):
        InMemoryModel(stream.base, state, stream.plan).read(VARIANCE)


def test_a_state_that_added_statistics_up_is_not_continued_as_a_mean(tmp_path: Path) -> None:
    base, others = models(2)
    older = opened(tmp_path / "older", base, others, averaged=False)
    [(state, _)] = older.merge(tmp_path, "weight_average", steps=1)
    stream = opened(tmp_path / "models", base, others)
    with pytest.raises(CheckpointError, match="treats other tensors as statistics"):
        stream.merge(tmp_path / "more", "weight_average", previous=state)


@pytest.mark.parametrize("method", ["opcm", "ties"])
def test_resumed_and_shared_work_gives_the_same_bytes(tmp_path: Path, method: str) -> None:
    base, others = models(3)
    stream = opened(tmp_path / "models", base, others)
    (tmp_path / "alone").mkdir()
    alone = merge_all(stream, tmp_path / "alone", method, DEFAULT_CONTEXT)
    (tmp_path / "shared").mkdir()
    result, ends = together(2, partial(merge_with, stream, tmp_path / "shared", method, []))
    assert (result, ends) == (alone, [0])
    [(first, _), *_, (last, _)] = stream.merge(tmp_path / "through", method)
    resumed = stream.merge(tmp_path / "resumed", method, previous=load_state(first.folder))
    assert resumed[-1][0].manifest == last.manifest


def test_rounding_to_a_narrow_dtype_keeps_variances(tmp_path: Path) -> None:
    base, others = models(2)
    stream = opened(tmp_path / "models", base, others)
    tensors = tuple(replace(tensor, out_dtype=torch.bfloat16) for tensor in stream.plan.tensors)
    narrow = Stream(stream.base, stream.checkpoints, replace(stream.plan, tensors=tensors))
    *_, (state, _) = narrow.merge(tmp_path, "opcm")
    merged = merged_values(narrow, state, tmp_path / "merged")
    expected = torch.from_numpy((others[0][VARIANCE] + others[1][VARIANCE]) / 2).to(torch.bfloat16)
    np.testing.assert_array_equal(merged[VARIANCE], expected.double().numpy())


@pytest.mark.parametrize("name", ["odd.running_var", "codebook.cluster_size"])
def test_counts_of_an_unknown_class_are_not_written_below_zero(name: str) -> None:
    base = {"a.weight": torch.zeros(2, 2), name: torch.ones(3)}
    tuned = {"a.weight": torch.ones(2, 2), name: torch.zeros(3)}
    halved = merge_state_dicts(base, [tuned], method="task_arithmetic", parameters={"scaling": 0.5})
    assert halved[name].tolist() == [0.5] * 3
    with pytest.raises(CheckpointError, match=f"'{name}' would have negative values") as raised:
        merge_state_dicts(base, [tuned, tuned], method="task_arithmetic", parameters={"scaling": 0.6})
    assert f'exclude: ["{name}"]' in str(raised.value.hint)


@pytest.mark.parametrize("method", ["opcm", "task_arithmetic"])
def test_state_dicts_are_averaged_in_memory_without_a_class(method: str) -> None:
    base, others = models(1)
    start, tuned = ({name: torch.from_numpy(value) for name, value in one.items()} for one in (base, others[0]))
    counted = {"bn.num_batches_tracked": torch.tensor(7)}
    merged = merge_state_dicts({**start, **counted}, [{**tuned, **counted}, {**start, **counted}], method=method)
    torch.testing.assert_close(merged[VARIANCE], (start[VARIANCE] + tuned[VARIANCE]) / 2)
    assert int(merged["bn.num_batches_tracked"]) == 7


def test_statistics_of_a_revoked_checkpoint_have_no_part(tmp_path: Path) -> None:
    base, others = models(3)
    stream, method = opened(tmp_path / "models", base, others), method_named("task_arithmetic")
    weights = [0.5, 0.1, 0.3]
    inputs = [
        StepInput(checkpoint, constant(method.Parameters.model_validate({"scaling": weight})))
        for checkpoint, weight in zip(stream.checkpoints, weights, strict=True)
    ]
    inputs.append(StepInput(stream.checkpoints[0], inputs[0].parameters_for, -1))
    merge = Merge(stream.base, method, stream.plan)
    state, _ = merge_steps(merge, inputs, None, tmp_path / "state")
    merged = merged_values(stream, state, tmp_path / "merged")
    for name in (MEAN, VARIANCE):
        expected = np.average([others[1][name], others[2][name]], axis=0, weights=weights[1:])
        np.testing.assert_allclose(merged[name], expected, rtol=1e-12)
    for number in (1, 2):
        inputs.append(StepInput(stream.checkpoints[number], inputs[number].parameters_for, -1))
    state, _ = merge_steps(merge, inputs, None, tmp_path / "nothing")
    merged = merged_values(stream, state, tmp_path / "base")
    for name in (MEAN, VARIANCE):
        np.testing.assert_allclose(merged[name], base[name], rtol=1e-12)
