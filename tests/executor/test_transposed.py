"""Methods that tell inputs from outputs, on a GPT-2, whose linear layers store their weights as (inputs, outputs)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel

import hubmerge
from hubmerge.checkpoints import PlannedTensor, align_models, make_plan, weight_matrices
from hubmerge.checkpoints.model_class.model_class import layers
from hubmerge.executor import Merge, ReadOut, StepInput, add_states, merge_steps
from hubmerge.executor.in_memory import StateDict
from hubmerge.executor.parts import state_parts
from hubmerge.executor.state import MergeState
from hubmerge.linalg import packed_length
from hubmerge.methods import METHODS, Method, method_named
from tests.executor.streams import Stream, constant
from tests.methods.test_moments import wudi

Tensors = dict[str, torch.Tensor]
MOMENTS = [method.name for method in METHODS if method.state_name == "moments"]
JOINT: dict[str, dict[str, Any]] = {
    "iso_cts": {"common": 0.4},
    "svc": {"alpha": 0.2, "weight": 0.4},
    "svc of tsv_m": {"of": "tsv_m", "alpha": 0.2},
    "lines of iso_cts": {"of": "iso_cts", "common": 0.4},
}
SYMMETRIC = ("opcm", "task_arithmetic", "dop", "tsv_m")
CONFIG = GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=11, n_positions=4, architectures=["GPT2LMHeadModel"])


@cache
def models() -> tuple[Tensors, list[Tensors]]:
    """Return a base model and four checkpoints, float64."""
    torch.manual_seed(3)
    base = {name: values.to(torch.float64) for name, values in GPT2LMHeadModel(CONFIG).state_dict().items()}
    del base["lm_head.weight"]
    tuned = [{name: one + 1e-2 * torch.randn_like(one) for name, one in base.items()} for _ in range(4)]
    return base, tuned


def is_conv1d(name: str) -> bool:
    return ".c_" in name and name.endswith(".weight")


def turned(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Return the tensors of a model with `Linear` layers in place of `Conv1D`."""
    return {name: one.T.contiguous() if is_conv1d(name) else one for name, one in tensors.items()}


def merged(method: str, parameters: Mapping[str, Any] | None = None, **config: Any) -> Tensors:
    base, tuned = models()
    return hubmerge.merge_state_dicts(base, tuned, method=method, parameters=parameters, **config)


def merged_as_linear(method: str, parameters: Mapping[str, Any] | None = None) -> Tensors:
    """Return the merge of the transposed weights, which names alone sort, transposed again."""
    base, tuned = models()
    return turned(
        hubmerge.merge_state_dicts(turned(base), list(map(turned, tuned)), method=method, parameters=parameters)
    )


@cache
def stream() -> Stream:
    base, tuned = models()
    config = CONFIG.to_dict()
    whole = StateDict("base", base, config)
    opened = [StateDict(f"c{number}", one, config) for number, one in enumerate(tuned, start=1)]
    found = align_models(whole, weight_matrices(whole.config, whole.tensors), opened)
    return Stream(found.base, list(found.aligned), make_plan(found.base, found.aligned, found.rule))


def steps(places: Sequence[int], method: Method) -> list[StepInput]:
    return [StepInput(stream().checkpoints[place], constant(method.Parameters())) for place in places]


def state_of(places: Sequence[int], folder: Path, previous: MergeState | None = None) -> MergeState:
    method = method_named("wudi")
    merge = Merge(stream().base, method, stream().plan)
    state = merge_steps(merge, steps(places, method), previous, folder)[0]
    assert isinstance(state, MergeState)
    return state


def deltas(state: MergeState, method: str = "wudi") -> Tensors:
    read_out = ReadOut(method_named(method), constant(method_named(method).Parameters()))
    return {tensor.name: read_out.delta(state, tensor) for tensor in stream().plan.merged}


def assert_equal(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=1e-9, atol=1e-12, msg=name)


def assert_like_linear(method: str, parameters: Mapping[str, Any]) -> None:
    found, expected = merged(method, parameters, config=CONFIG.to_dict()), merged_as_linear(method, parameters)
    names = set(filter(is_conv1d, found))
    assert names
    assert_equal({name: found[name] for name in names}, {name: expected[name] for name in names})


def test_the_plan_knows_matrices_that_are_stored_transposed() -> None:
    tensors = {tensor.name: tensor for tensor in stream().plan.merged}
    assert {name for name, tensor in tensors.items() if tensor.transposed} == set(filter(is_conv1d, tensors))
    up = tensors["transformer.h.0.mlp.c_fc.weight"]
    assert up.shape == (8, 32)
    assert [*state_parts(method_named("wudi"), up).values()] == [(32, 8), (packed_length(8),), ()]


@pytest.mark.parametrize(
    ("family", "transposed"), [("GptOssForCausalLM", True), ("Llama4ForCausalLM", True), ("MixtralForCausalLM", False)]
)
def test_joined_experts_are_transposed_as_their_class_says(family: str, transposed: bool) -> None:
    kind = getattr(transformers, family)
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "vocab_size": 11, "num_local_experts": 2, "head_dim": 4}
    with torch.device("meta"):
        model = kind(kind.config_class(**sizes))
    shapes, matrices, found = layers(model)
    experts = {name for name in matrices if len(shapes[name]) == 3}
    assert len(experts) == 2
    assert found == (experts if transposed else set())
    inputs = {shapes[name][1 if transposed else 2] for name in experts}
    assert inputs == {8, 12}


def test_experts_stored_transposed_have_parts_of_their_inputs() -> None:
    experts = PlannedTensor("e", (3, 8, 32), torch.float32, torch.float32, "merge-matrix", "", transposed=True)
    assert [*state_parts(method_named("ace"), experts).values()] == [(3, 32, 8), (3, packed_length(8)), (3,)]


def test_wudi_is_the_oracle_on_transposed_matrices() -> None:
    base, tuned = models()
    found = merged("wudi", config=CONFIG.to_dict())
    names = [*filter(is_conv1d, base)]
    assert names
    for name in names:
        expected = wudi([(one[name] - base[name]).T.numpy() for one in tuned]).T
        assert np.allclose((found[name] - base[name]).numpy(), expected, rtol=1e-8, atol=1e-12), name


@pytest.mark.parametrize("method", MOMENTS)
def test_conv1d_is_merged_like_linear(method: str) -> None:
    assert_like_linear(method, {"refined": 0.3} if method == "ace" else {})


@pytest.mark.parametrize("case", JOINT)
def test_joint_methods_on_one_side_merge_conv1d_like_linear(case: str) -> None:
    assert_like_linear(case.partition(" ")[0], JOINT[case])


@pytest.mark.parametrize("method", ["wudi", "ace", "iso_cts", "svc"])
def test_the_side_matters(method: str) -> None:
    parameters = JOINT.get(method)
    by_class, by_name = merged(method, parameters, config=CONFIG.to_dict()), merged(method, parameters)
    name = "transformer.h.0.mlp.c_proj.weight"
    assert not torch.allclose(by_class[name], by_name[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", SYMMETRIC)
def test_methods_without_sides_see_matrices_as_they_are_stored(method: str) -> None:
    found, expected = merged(method, config=CONFIG.to_dict()), merged(method)
    names = [*filter(is_conv1d, found)]
    assert names
    for name in names:
        assert torch.equal(found[name], expected[name]), name


def test_states_are_extended_read_revoked_and_combined(tmp_path: Path) -> None:
    whole = state_of([0, 1, 2], tmp_path / "whole")
    extended = state_of([2], tmp_path / "extended", state_of([0, 1], tmp_path / "first"))
    assert_equal(deltas(extended), deltas(whole))
    base, _ = models()
    direct = hubmerge.merge_state_dicts(base, models()[1][:3], method="iso_c", config=CONFIG.to_dict())
    assert_equal(deltas(whole, "iso_c"), {name: direct[name] - base[name] for name in deltas(whole)})
    method = method_named("wudi")
    merge = Merge(stream().base, method, stream().plan)
    out = StepInput(stream().checkpoints[1], constant(method.Parameters()), sign=-1)
    revoked, _ = merge_steps(merge, [out], whole, tmp_path / "revoked")
    assert isinstance(revoked, MergeState)
    assert_equal(deltas(revoked), deltas(state_of([0, 2], tmp_path / "never")))
    (last,) = steps([2], method)
    states = [state_of([0, 1], tmp_path / "one"), state_of([2], tmp_path / "two")]
    combined, _ = add_states(merge, states, last, tmp_path / "combined", chain="combined")
    assert_equal(deltas(combined), deltas(whole))


def test_float32_states_and_products_take_the_same_side(tmp_path: Path) -> None:
    exact, name = deltas(state_of([0, 1, 2], tmp_path / "exact")), "transformer.h.0.attn.c_attn.weight"
    method = method_named("wudi")
    values = method.Parameters.model_validate({"precision": "float32"})
    merge = Merge(stream().base, method, stream().plan, state_dtype=torch.float32)
    inputs = [StepInput(one, constant(values)) for one in stream().checkpoints[:3]]
    state, _ = merge_steps(merge, inputs, None, tmp_path / "float32")
    assert isinstance(state, MergeState)
    torch.testing.assert_close(deltas(state)[name], exact[name], rtol=1e-3, atol=1e-5)
