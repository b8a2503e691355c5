"""Tests of the merge plan: actions and reasons from headers, and refusals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from hubmerge.checkpoints import (
    ALL_TENSORS,
    Checkpoint,
    MatrixRule,
    MergePlan,
    Selection,
    align,
    check_ties,
    make_plan,
    open_checkpoint,
    open_headers,
    plan_shards,
    weight_matrices,
)
from hubmerge.errors import CheckpointError
from tests.checkpoints.files import random_tensors, selection_in, with_prefix, without, write_folder
from tests.checkpoints.models import save
from tests.checks import every

Open = Callable[..., Checkpoint]

VISION = random_tensors(
    {"vision_model.q.weight": (6, 4), "vision_model.q.bias": (6,), "vision_model.class_embedding": (4,)}
)
TEXT = random_tensors({"text_model.q.weight": (4, 4), "text_model.norm.weight": (4,)})
BUFFER = {"vision_model.position_ids": torch.arange(5)}
WHOLE = {**VISION, **BUFFER, **TEXT, "logit_scale": torch.tensor(2.0)}
RULE = MatrixRule(frozenset({"vision_model.q.weight", "text_model.q.weight"}), "By hand.", {})


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    def open_one(name: str, tensors: Mapping[str, torch.Tensor], config: dict[str, Any] | None = None) -> Checkpoint:
        return open_checkpoint(write_folder(tmp_path / name, tensors, config), name)

    return open_one


def planned(
    base: Checkpoint,
    checkpoints: list[Checkpoint],
    selection: Selection = ALL_TENSORS,
    out_dtype: torch.dtype | None = None,
    rule: MatrixRule = RULE,
) -> MergePlan:
    aligned = [align(base, checkpoint, selection=selection, ties=rule.ties) for checkpoint in checkpoints]
    return make_plan(base, aligned, rule, selection=selection, out_dtype=out_dtype)


def actions(plan: MergePlan) -> dict[str, str]:
    return {tensor.name: tensor.action for tensor in plan.tensors}


def test_towers_into_a_whole_model(opened: Open) -> None:
    plan = planned(opened("base", WHOLE), [opened("one", VISION), opened("two", VISION)])
    assert actions(plan) == {
        "vision_model.q.weight": "merge-matrix",
        "vision_model.q.bias": "merge-other",
        "vision_model.class_embedding": "merge-other",
        "vision_model.position_ids": "keep",
        "text_model.q.weight": "keep",
        "text_model.norm.weight": "keep",
        "logit_scale": "keep",
    }
    reasons = {tensor.name: tensor.reason for tensor in plan.tensors}
    assert reasons["text_model.q.weight"] == "no checkpoint has text_model"
    assert "buffer" in reasons["vision_model.position_ids"]
    assert plan.matrix_rule == "By hand."
    assert plan.counts == {"merge-matrix": 1, "merge-other": 2, "average": 0, "keep": 4}


def test_totals_of_a_plan(opened: Open) -> None:
    plan = planned(opened("base", WHOLE), [opened("one", VISION)])
    assert plan.elements == 24 + 6 + 4
    assert plan.state_bytes == 34 * 8
    assert plan.written_bytes == sum(tensor.nbytes for tensor in WHOLE.values())
    assert plan.largest.name == "vision_model.q.weight"
    assert plan.flops_per_step == 6 * 4**2 * 6 + 10 * 4**3 + 6 + 4
    assert {tensor.name for tensor in plan.merged} == set(VISION)
    assert {tensor.name for tensor in plan.kept} == set(WHOLE) - set(VISION)


def test_a_component_that_only_some_checkpoints_have_is_refused_and_the_hint_works(opened: Open) -> None:
    base, tower, whole = opened("base", WHOLE), opened("tower", VISION), opened("whole", WHOLE)
    with pytest.raises(CheckpointError, match=r"tower: \w+ is missing, which whole has") as caught:
        planned(base, [whole, tower])
    assert selection_in(caught.value) == Selection(include=("vision_model.*",))
    with pytest.raises(CheckpointError, match=r"tower: \w+ is missing, which whole has") as caught:
        planned(base, [whole, tower], Selection(include=("*q*", "*scale"), exclude=("*norm*",)))
    selection = selection_in(caught.value)
    assert selection == Selection(include=("*q*", "*scale"), exclude=("*norm*", "text_model.*", "logit_scale"))
    for rule in (selection, Selection(include=("vision_model.*",)), Selection(exclude=("text_model.*", "logit_scale"))):
        plan = planned(base, [whole, tower], rule)
        assert {tensor.name for tensor in plan.merged} == {name for name in VISION if rule.covers(name)}
        assert every(tensor.reason == rule.reason_against(tensor.name) for tensor in plan.kept if "text" in tensor.name)


def test_an_excluded_head_may_differ(opened: Open) -> None:
    head = {"classifier.weight": torch.ones(10, 4)}
    other = {"classifier.weight": torch.ones(3, 4)}
    base = opened("base", {**VISION, **head})
    checkpoints = [opened("same", {**VISION, **head}), opened("other", {**VISION, **other}), opened("none", VISION)]
    plan = planned(base, checkpoints, Selection(exclude=("classifier.*",)))
    assert actions(plan)["classifier.weight"] == "keep"
    assert {tensor.name for tensor in plan.merged} == set(VISION)


@pytest.mark.parametrize("selection", [Selection(exclude=("vision_modle.*",)), Selection(include=("visual.*",))])
def test_a_glob_that_matches_nothing_is_refused(opened: Open, selection: Selection) -> None:
    base = opened("base", VISION)
    with pytest.raises(CheckpointError, match="matches no tensor"):
        make_plan(base, [align(base, base)], RULE, selection=selection)


def test_a_glob_without_its_star_is_corrected_in_the_hint(opened: Open) -> None:
    base = opened("base", WHOLE)
    with pytest.raises(CheckpointError, match="'text_model' matches no tensor") as caught:
        planned(base, [base], Selection(include=("vision_model.*", "text_model")))
    assert "for all tensors of text_model write `text_model.*`" in (caught.value.hint or "")


def test_a_plan_without_merged_tensors_is_refused(opened: Open) -> None:
    base = opened("base", VISION)
    with pytest.raises(CheckpointError, match="nothing to merge"):
        make_plan(base, [align(base, base)], RULE, selection=Selection(exclude=("*",)))


def test_written_dtypes(opened: Open) -> None:
    tensors = {**WHOLE, "text_model.norm.weight": TEXT["text_model.norm.weight"].to(torch.bfloat16)}
    base, one = opened("base", tensors), opened("one", VISION)
    as_stored = {tensor.name: tensor for tensor in planned(base, [one]).tensors}
    assert every(tensor.out_dtype == tensor.dtype == tensors[name].dtype for name, tensor in as_stored.items())
    assert as_stored["text_model.norm.weight"].copied
    cast = {tensor.name: tensor for tensor in planned(base, [one], out_dtype=torch.bfloat16).tensors}
    assert cast["vision_model.q.weight"].out_dtype == torch.bfloat16
    assert cast["vision_model.position_ids"].out_dtype == torch.int64
    assert not cast["text_model.q.weight"].copied
    assert cast["text_model.norm.weight"].copied
    assert cast["text_model.q.weight"].spec.nbytes == 32


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.uint8, torch.int8])
@pytest.mark.parametrize("where", ["base", "checkpoint"])
def test_quantized_weights_are_refused_unless_excluded(opened: Open, dtype: torch.dtype, where: str) -> None:
    quantized = {**VISION, "vision_model.q.weight": torch.ones(6, 4).to(dtype)}
    config = {"quantization_config": {"quant_method": "some"}}
    base = opened("base", quantized, config) if where == "base" else opened("base", VISION)
    one = opened("one", quantized, config) if where == "checkpoint" else opened("one", VISION)
    with pytest.raises(CheckpointError, match=r"'vision_model\.q\.weight'") as caught:
        planned(base, [one])
    assert "unquantized" in (caught.value.hint or "")
    plan = planned(base, [one], Selection(exclude=("*.q.weight",)), out_dtype=torch.float16)
    kept = next(tensor for tensor in plan.kept if tensor.name == "vision_model.q.weight")
    assert kept.copied is (where == "base")


def test_8_bit_floats_without_scales_are_merged(opened: Open) -> None:
    eight_bit = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in VISION.items()}
    plan = planned(opened("base", eight_bit), [opened("one", eight_bit), opened("two", VISION)])
    assert actions(plan)["vision_model.q.weight"] == "merge-matrix"
    assert {tensor.out_dtype for tensor in plan.tensors} == {torch.float8_e4m3fn}
    wider = planned(opened("base2", eight_bit), [opened("three", VISION)], out_dtype=torch.bfloat16)
    assert {tensor.out_dtype for tensor in wider.tensors} == {torch.bfloat16}


@pytest.mark.parametrize("scale", ["weight_scale", "weight_scale_inv", "scale_weight"])
def test_8_bit_floats_with_scales_are_refused_even_where_the_scales_are_excluded(opened: Open, scale: str) -> None:
    quantized = {
        **VISION,
        "vision_model.q.weight": torch.ones(6, 4).to(torch.float8_e4m3fn),
        f"vision_model.q.{scale}": torch.ones(()),
    }
    base, one = opened("base", VISION), opened("one", quantized)
    with pytest.raises(CheckpointError, match=scale):
        planned(base, [one])
    with pytest.raises(CheckpointError, match=r"one: tensor 'vision_model\.q\.weight' is stored as float8"):
        planned(base, [one], Selection(exclude=(f"*.{scale}",)))


CLASSES = {"id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0, "dog": 1}}
TURNED = {"id2label": {"0": "dog", "1": "cat"}}
UNNAMED = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
HEAD = {**VISION, "classifier.weight": torch.ones(2, 4), "classifier.bias": torch.ones(2)}
HEAD_RULE = MatrixRule(frozenset({"vision_model.q.weight", "classifier.weight"}), "By hand.", {})


def test_a_head_for_the_same_classes_is_merged(opened: Open) -> None:
    base, checkpoints = opened("base", HEAD, CLASSES), [opened(name, HEAD, CLASSES) for name in ("one", "two")]
    assert actions(planned(base, checkpoints, rule=HEAD_RULE))["classifier.weight"] == "merge-matrix"


@pytest.mark.parametrize("config", [TURNED, UNNAMED, {}, {"id2label": "broken"}, {"id2label": {"x": "cat"}}])
@pytest.mark.parametrize("where", ["base", "checkpoint"])
def test_a_head_for_other_or_unknown_classes_needs_a_rule(opened: Open, config: dict[str, Any], where: str) -> None:
    base = opened("base", HEAD, config if where == "base" else CLASSES)
    checkpoints = [opened("one", HEAD, CLASSES), opened("two", HEAD, config if where == "checkpoint" else CLASSES)]
    with pytest.raises(CheckpointError, match=r"'classifier\.weight' belongs to a classification head for") as caught:
        planned(base, checkpoints, rule=HEAD_RULE)
    assert 'exclude: ["classifier.*"]' in (caught.value.hint or "")
    kept = planned(base, checkpoints, Selection(exclude=("classifier.*",)), rule=HEAD_RULE)
    assert actions(kept)["classifier.weight"] == actions(kept)["classifier.bias"] == "keep"
    merged = planned(base, checkpoints, Selection(include=("*",)), rule=HEAD_RULE)
    assert actions(merged)["classifier.weight"] == "merge-matrix"


def test_joined_experts_are_matrices(opened: Open) -> None:
    experts = {"mlp.experts.down_proj": torch.ones(5, 4, 6), "mlp.experts.down_proj_bias": torch.ones(5, 4)}
    base = opened("base", experts)
    rule = weight_matrices(base.config, base.tensors)
    plan = planned(base, [opened("one", experts)], rule=rule)
    assert actions(plan) == {"mlp.experts.down_proj": "merge-matrix", "mlp.experts.down_proj_bias": "merge-other"}
    matrix = next(tensor for tensor in plan.tensors if tensor.action == "merge-matrix")
    assert matrix.reason == "the weights of 5 experts"
    assert matrix.flops == 5 * (6 * 4**2 * 6 + 10 * 4**3)


TIES = {"lm_head.weight": "embed.weight"}
EMBED = {"embed.weight": torch.arange(8.0).reshape(4, 2), "layer.bias": torch.ones(3)}
TIED_RULE = MatrixRule(frozenset(), "By hand.", TIES)


def test_a_tied_copy_is_not_written_and_counts_once(opened: Open) -> None:
    both = {**EMBED, "lm_head.weight": EMBED["embed.weight"].clone()}
    base, one = opened("base", both), opened("one", EMBED)
    plan = planned(base, [one], rule=TIED_RULE)
    assert plan.left_out == (("lm_head.weight", "embed.weight"),)
    assert set(actions(plan)) == set(EMBED)
    assert plan.elements == 11
    check_ties(base, plan)
    untied = opened("untied", {**both, "lm_head.weight": torch.zeros(4, 2)})
    with pytest.raises(CheckpointError, match=r"untied: tensors 'lm_head\.weight' and 'embed\.weight' differ"):
        check_ties(untied, plan)


def test_the_plan_of_a_real_tower_from_headers_alone(tmp_path: Path) -> None:
    headers = {}
    for name in ("CLIPModel", "CLIPVisionModel"):
        folder = save(name, tmp_path / name)
        content = (folder / "model.safetensors").read_bytes()
        length = int.from_bytes(content[:8], "little")
        headers[name] = open_headers(
            {"model.safetensors": content[: 8 + length]},
            open_checkpoint(folder).config,
            f"owner/{name}@abc",
            sizes={"model.safetensors": len(content)},
        )
    base, tower = headers["CLIPModel"], headers["CLIPVisionModel"]
    rule = weight_matrices(base.config, base.tensors)
    plan = planned(base, [tower, tower], rule=rule)
    assert plan.counts == {"merge-matrix": 12, "merge-other": 27, "average": 0, "keep": 39}
    assert {tensor.name for tensor in plan.merged} == set(with_prefix("vision_model.", tower.tensors))
    kept = {tensor.name for tensor in plan.kept if tensor.copied}
    assert [len(shard.specs) for shard in plan_shards(plan.specs, 10**9, kept=kept)] == [78]
    assert [len(shard.specs) for shard in plan_shards(plan.specs, 10**9, kept=kept, older=True)] == [39, 39]


def test_a_missing_tensor_inside_a_component_is_refused_in_the_plan(opened: Open) -> None:
    with pytest.raises(CheckpointError, match=r"'vision_model\.q\.bias'"):
        planned(opened("base", WHOLE), [opened("gap", without(VISION, ["vision_model.q.bias"]))])
