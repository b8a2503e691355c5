"""Tensors that the model's class does not use: layers for multi-token prediction, and what other heads left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubmerge.checkpoints import align_models, check_loads, make_plan, open_checkpoint, weight_matrices
from hubmerge.checkpoints.matching.spare import prediction_layers
from hubmerge.errors import CheckpointError
from hubmerge.plan.ignored_text import ignored_lines
from tests.checkpoints.families import LANGUAGE, make, save
from tests.checks import every

LAYER = "a layer for multi-token prediction"


def deepseek(seed: int = 0) -> Any:
    import transformers

    sizes = {"moe_intermediate_size": 4, "n_routed_experts": 2, "num_experts_per_tok": 1, "n_group": 1}
    sizes |= {"topk_group": 1, "first_k_dense_replace": 1, "kv_lora_rank": 4, "q_lora_rank": 4}
    sizes |= {"qk_rope_head_dim": 2, "qk_nope_head_dim": 2, "v_head_dim": 4, "num_hidden_layers": 2}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(**{**LANGUAGE, **sizes}))


def with_more(folder: Path, copy: Path, more: dict[str, torch.Tensor], **config: Any) -> Path:
    """Save a copy of a model with more tensors and other settings."""
    copy.mkdir()
    tensors = {**load_file(folder / "model.safetensors"), **more}
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    settings = {**json.loads((folder / "config.json").read_text()), **config}
    (copy / "config.json").write_text(json.dumps(settings))
    return copy


def further_layer(folder: Path, last: str, new: str) -> dict[str, torch.Tensor]:
    """Return a copy of a layer under another name, with the projection of a layer for multi-token prediction."""
    tensors = load_file(folder / "model.safetensors")
    layer = {name.replace(last, new): value for name, value in tensors.items() if name.startswith(last)}
    return {**layer, f"{new}eh_proj.weight": torch.ones(16, 32), f"{new}enorm.weight": torch.ones(16)}


def planned(base: Path, *checkpoints: Path) -> Any:
    opened = open_checkpoint(base, "base")
    found = align_models(
        opened,
        weight_matrices(opened.config, opened.tensors),
        [open_checkpoint(each, each.name) for each in checkpoints],
    )
    return make_plan(found.base, found.aligned, found.rule), found.aligned


def reasons(plan: Any) -> dict[str, set[str]]:
    """Return the kept tensors by reason."""
    found: dict[str, set[str]] = {}
    for tensor in plan.kept:
        found.setdefault(tensor.reason, set()).add(tensor.name)
    return found


@pytest.mark.parametrize("new", ["model.layers.2.", "mtp.layers.0.", "model.mtp_layers.0.", "model.mtp_block.0."])
def test_layers_for_prediction_may_be_in_some_files_only(tmp_path: Path, new: str) -> None:
    base, tuned = (save(deepseek(seed), tmp_path / str(seed)) for seed in (0, 1))
    count = {"num_nextn_predict_layers": 1}
    more = further_layer(base, "model.layers.1.", new)
    whole, other = (with_more(folder, tmp_path / f"more {folder.name}", more, **count) for folder in (base, tuned))
    plan, _ = planned(whole, tuned)
    assert reasons(plan) == {f"{LAYER}, in no checkpoint": set(more)}
    plan, _ = planned(whole, tuned, other)
    assert reasons(plan) == {f"{LAYER}, not in every checkpoint": set(more)}
    assert not planned(whole, other)[0].kept
    reduced = with_more(base, tmp_path / "base", {}, **count)
    plan, aligned = planned(reduced, other)
    assert not plan.kept
    assert {tensor.name for tensor in aligned[0].ignored} == set(more)
    assert every(f"({LAYER}, and the base model lacks it)" in line for line in ignored_lines(aligned))
    with open_checkpoint(whole) as opened:
        shapes = {name: info.shape for name, info in opened.tensors.items()}
        (note,) = check_loads(opened.config, shapes, shapes, "base")
        assert "does not use " in note
        if new == "model.layers.2.":
            with pytest.raises(CheckpointError, match="the weights have layers that it does not describe"):
                check_loads({**opened.config, "num_nextn_predict_layers": 0}, shapes, shapes, "base")


@pytest.mark.parametrize("new", ["model.layers.2.", "model.mtp_layers.0."])
def test_layers_for_prediction_of_an_unknown_class(tmp_path: Path, new: str) -> None:
    tuned = save(deepseek(), tmp_path / "tuned")
    unknown: dict[str, Any] = {"model_type": "own", "architectures": ["OwnForCausalLM"], "num_nextn_predict_layers": 1}
    folder = with_more(tuned, tmp_path / "unknown", {}, **unknown)
    more = further_layer(tuned, "model.layers.1.", new)
    plan, _ = planned(with_more(tuned, tmp_path / "more", more, **unknown), folder)
    assert reasons(plan)[f"{LAYER}, in no checkpoint"] == set(more)
    assert plan.no_class is not None


def test_a_layer_that_the_class_uses_is_not_spare(tmp_path: Path) -> None:
    base = save(deepseek(), tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    folder = with_more(base, tmp_path / "short", {})
    left = {name: value for name, value in tensors.items() if not name.startswith("model.layers.1.")}
    save_file(left, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"model\.layers\.1"):
        planned(base, folder)


def test_what_the_class_does_not_use_may_be_lacking(tmp_path: Path) -> None:
    """A masked language model in a file that still has the pooler and the head of another task."""
    base = save(
        make("BertForSequenceClassification", architectures=["BertForSequenceClassification"]), tmp_path / "base"
    )
    more = {"bert.extra.weight": torch.ones(4, 4), "bert.extra.bias": torch.ones(4)}
    whole = with_more(base, tmp_path / "more", more)
    plan, _ = planned(whole, base)
    assert reasons(plan)["not used by the model's class, in no checkpoint"] == set(more)
    with pytest.raises(CheckpointError, match=r"'bert\.extra\.bias' and 1 more are not in the base model"):
        planned(base, whole)


def test_what_the_class_ignores_is_not_merged(tmp_path: Path) -> None:
    import transformers

    encoder = transformers.T5EncoderModel.from_pretrained(save(make("T5ForConditionalGeneration"), tmp_path / "t5"))
    base = save(encoder, tmp_path / "encoder")
    whole = save(make("T5ForConditionalGeneration", 1), tmp_path / "whole")
    plan, aligned = planned(base, whole)
    assert not plan.kept
    assert every(tensor.name.startswith("decoder.") for tensor in aligned[0].ignored)
    assert {tensor.reason for tensor in aligned[0].ignored} == {
        "not used by the model's class, and the base model lacks it"
    }


def test_the_numbers_of_further_layers_are_in_the_config() -> None:
    assert prediction_layers({"num_hidden_layers": 4}) == frozenset()
    assert prediction_layers({"num_hidden_layers": 4, "num_nextn_predict_layers": 2}) == {4, 5}
    assert prediction_layers({"text_config": {"num_hidden_layers": 4, "mtp_num_hidden_layers": 1}}) == {4}
    assert prediction_layers({"num_hidden_layers": 4, "num_mtp_modules": "3"}) == frozenset()
    assert prediction_layers({"num_hidden_layers": 4, "num_nextn_predict_layers": 10**9}) == frozenset()
