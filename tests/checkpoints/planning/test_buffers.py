"""Buffers of a model's class are no weights: statistics are averaged, and none is a reason to refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from hubmerge.checkpoints import ALL_TENSORS, MergePlan, Selection, align, make_plan, open_checkpoint, weight_matrices
from hubmerge.checkpoints.matching.buffers import NO_BUFFERS, must_not_be_negative
from hubmerge.checkpoints.planning.matrices import MatrixRule
from hubmerge.plan.ignored_text import ignored_lines
from tests.checkpoints.files import without
from tests.checkpoints.small_buffers import batch_norm, deepseek, falcon, m2m100, swinv2
from tests.checks import every

Tensors = dict[str, torch.Tensor]


def stored(folder: Path, tensors: Tensors) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def saved(folder: Path, model: transformers.PreTrainedModel, more: Tensors, less: tuple[str, ...] = ()) -> Path:
    model.save_pretrained(folder)
    return stored(folder, without(load_file(folder / "model.safetensors"), less) | more)


def rule_of(folder: Path) -> MatrixRule:
    with open_checkpoint(folder) as opened:
        return weight_matrices(opened.config, opened.tensors)


def planned(base: Path, *others: Path, selection: Selection = ALL_TENSORS) -> tuple[MergePlan, list[str]]:
    opened = open_checkpoint(base, "base")
    rule = weight_matrices(opened.config, opened.tensors)
    aligned = [
        align(opened, open_checkpoint(other, other.name), selection=selection, ties=rule.ties, buffers=rule.buffers)
        for other in others
    ]
    return make_plan(opened, aligned, rule, selection=selection), list(ignored_lines(aligned))


def actions(plan: MergePlan) -> dict[str, str]:
    return {tensor.name: tensor.action for tensor in plan.tensors}


def test_statistics_of_a_class_are_averaged(tmp_path: Path) -> None:
    folder = saved(tmp_path / "base", batch_norm(), {})
    plan, _ = planned(folder, folder)
    found = {tensor.name.rpartition(".")[2]: tensor for tensor in plan.averaged}
    assert found.keys() == {"running_mean", "running_var"}
    assert (found["running_mean"].never_negative, found["running_var"].never_negative) == (False, True)
    assert plan.statistics_rule is not None
    assert "ResNetForImageClassification" in plan.statistics_rule
    assert {name.rpartition(".")[2] for name, action in actions(plan).items() if action == "keep"} == {
        "num_batches_tracked"
    }


def test_a_bias_of_a_router_that_is_a_buffer_is_averaged(tmp_path: Path) -> None:
    folder = saved(tmp_path / "base", deepseek(), {})
    plan, _ = planned(folder, folder)
    assert [tensor.name for tensor in plan.averaged] == ["model.layers.0.mlp.gate.e_score_correction_bias"]
    assert not plan.averaged[0].never_negative


@pytest.mark.parametrize("known", [True, False])
def test_statistics_without_a_class_are_found_in_pairs(tmp_path: Path, *, known: bool) -> None:
    folder = saved(
        tmp_path / "base", batch_norm(), {"other.running_mean": torch.zeros(3), "a.running_var.weight": torch.ones(3)}
    )
    if not known:
        (folder / "config.json").write_text("{}")
    rule = rule_of(folder)
    assert {name.rpartition(".")[2] for name in rule.buffers.statistics} == {"running_mean", "running_var"}
    assert {"other.running_mean", "a.running_var.weight"} & rule.buffers.statistics == set()
    assert ("class is not known" in rule.buffers.source) is not known
    assert {name.rpartition(".")[2] for name in rule.buffers.variances} == {"running_var"}


def test_statistics_that_the_class_does_not_have_are_found_in_pairs(tmp_path: Path) -> None:
    more = {
        "extra.bn.running_mean": torch.zeros(3),
        "extra.bn.running_var": torch.ones(3),
        "odd.running_var": torch.ones(2),
    }
    rule = rule_of(saved(tmp_path / "base", deepseek(), more))
    assert {"extra.bn.running_mean", "extra.bn.running_var"} <= rule.buffers.statistics
    assert "odd.running_var" not in rule.buffers.statistics


def test_variances_and_counts_are_known_by_their_own_name() -> None:
    names = ("bn.running_var", "vq.cluster_size", "x.ema_std", "x.variance", "var")
    assert every(map(must_not_be_negative, names))
    others = ("bn.running_mean", "var.mean", "x.variable", "x.e_score_correction_bias", "")
    assert not any(map(must_not_be_negative, others))


def cached(model: transformers.PreTrainedModel, last: str, shape: tuple[int, ...], more: str) -> Tensors:
    """Return buffers with the names that the class registers, or that an earlier version did."""
    found = [name for name, _ in model.named_buffers() if name.endswith(f".{last}")]
    return {name: torch.rand(shape) for name in found} or {more: torch.rand(shape)}


CACHES: dict[str, tuple[Callable[[], transformers.PreTrainedModel], str, tuple[int, ...], str]] = {
    "swinv2": (swinv2, "relative_coords_table", (1, 3, 3, 2), ""),
    "m2m100": (m2m100, "weights", (18, 8), ""),
    "falcon": (falcon, "cos_cached", (1, 1, 16, 4), "transformer.h.0.self_attention.rotary_emb.cos_cached"),
    "inv_freq": (falcon, "inv_freq", (2,), ""),
}


@pytest.mark.parametrize("family", list(CACHES))
def test_a_cache_in_some_files_only_is_no_reason_to_refuse(tmp_path: Path, family: str) -> None:
    make, last, shape, more = CACHES[family]
    model = make()
    extra = cached(model, last, shape, more)
    plain, with_cache = saved(tmp_path / "plain", model, {}), saved(tmp_path / "cache", model, extra)
    other = saved(tmp_path / "other", model, {name: tensor[..., :1] for name, tensor in extra.items()})
    kept, _ = planned(with_cache, plain, with_cache, other)
    assert {actions(kept)[name] for name in extra} == {"keep"}
    assert kept.elements == planned(plain, plain)[0].elements
    ignored, lines = planned(plain, with_cache, other)
    assert set(actions(ignored)) == set(actions(planned(plain, plain)[0]))
    assert len(lines) == 1
    assert "buffer" in lines[0]
    assert lines[0].startswith("2 checkpoints: ")


def test_statistics_in_some_files_only_are_kept(tmp_path: Path) -> None:
    model = batch_norm()
    names = tuple(name for name, _ in model.named_buffers() if "running" in name)
    whole, bare = saved(tmp_path / "whole", model, {}), saved(tmp_path / "bare", model, {}, names)
    kept, _ = planned(whole, whole, bare)
    assert {actions(kept)[name] for name in names} == {"keep"}
    assert {tensor.reason for tensor in kept.kept if tensor.name in names} == {
        "running_mean is a buffer, and only some models have it",
        "running_var is a buffer, and only some models have it",
    }
    ignored, lines = planned(bare, whole, whole)
    assert not set(names) & set(actions(ignored))
    # One line for each kind, with the integers that count batches.
    assert len(lines) == 3


def test_a_statistic_of_another_shape_is_ignored(tmp_path: Path) -> None:
    model = deepseek()
    folder = saved(tmp_path / "base", model, {})
    name = "model.layers.0.mlp.gate.e_score_correction_bias"
    plan, lines = planned(folder, saved(tmp_path / "other", model, {name: torch.zeros(2)}))
    assert actions(plan)[name] == "keep"
    assert lines == [f"other: {name} (a buffer of another shape)"]


def test_excluded_statistics_are_kept(tmp_path: Path) -> None:
    folder = saved(tmp_path / "base", batch_norm(), {})
    plan, _ = planned(folder, folder, selection=Selection(exclude=("*.running_*",)))
    assert plan.averaged == ()


def test_a_stream_that_adds_statistics_up_still_knows_variances(tmp_path: Path) -> None:
    rule = rule_of(saved(tmp_path / "base", batch_norm(), {}))
    older = rule.buffers.counted_as_weights(rule.buffers.statistics)
    assert older.statistics == frozenset()
    assert older.variances == rule.buffers.variances != frozenset()
    assert older.is_computed("a.cos_cached")
    assert not older.counted_as_weights(["a.cos_cached"]).is_computed("a.cos_cached")
    assert NO_BUFFERS.reason("bn.running_var") is None
