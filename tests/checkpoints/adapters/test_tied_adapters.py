"""Adapters of models in which one tensor has several names: what `merge_and_unload` of peft gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hubmerge.checkpoints import AdaptedCheckpoint, open_adapter, open_checkpoint
from tests.checkpoints.adapters.making import IGNORED_WARNINGS, adapt, adapter_of_peft, opened, train
from tests.checkpoints.families import make, save

pytestmark = IGNORED_WARNINGS

HEADS = {
    "Qwen2ForCausalLM": ("model.embed_tokens.weight", "lm_head", "embed_tokens"),
    "GPT2LMHeadModel": ("transformer.wte.weight", "lm_head", "wte"),
    "T5ForConditionalGeneration": ("shared.weight", "lm_head", "shared"),
}


def changes_like_peft(model: Path, adapter: Path, merged: Path) -> list[str]:
    """Check every tensor of the model in files against the one that peft wrote, and return the changed ones."""
    ours, before, after = opened(model, adapter), open_checkpoint(model), open_checkpoint(merged)
    assert set(ours.tensors) == set(before.tensors)
    for name in before.tensors:
        torch.testing.assert_close(ours.read(name), after.read(name), rtol=1e-9, atol=1e-12, msg=name)
    return [name for name in before.tensors if not torch.equal(before.read(name), after.read(name))]


@pytest.mark.parametrize("family", HEADS)
def test_changes_under_any_name_of_a_tied_tensor_are_added_up(tmp_path: Path, family: str) -> None:
    name, head, table = HEADS[family]
    for modules in ([head], [table], [head, table]):
        folders = adapt(family, {"target_modules": modules}, tmp_path / "+".join(modules))
        assert changes_like_peft(*folders) == [name]


@pytest.mark.parametrize("family", ["Zamba2ForCausalLM", "ZambaForCausalLM"])
def test_changes_of_a_shared_block_are_added_up(tmp_path: Path, family: str) -> None:
    model = zamba(family).double()
    save(model, tmp_path / "model")
    adapted = train(model, {"target_modules": ["down_proj", "o_proj"]})
    adapted.save_pretrained(tmp_path / "adapter")
    save(adapted.merge_and_unload(), tmp_path / "merged")
    changed = changes_like_peft(tmp_path / "model", tmp_path / "adapter", tmp_path / "merged")
    assert len(changed) >= 2
    assert len(adapter_of_peft(tmp_path / "adapter").changes) > len(changed)


def zamba(family: str) -> Any:
    import transformers

    blocks = {"num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"]}
    sizes = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, **blocks}
    own: dict[str, dict[str, Any]] = {
        "ZambaForCausalLM": {"mamba_dt_rank": 2},
        "Zamba2ForCausalLM": {"num_mem_blocks": 1, "mamba_headdim": 16, "n_mamba_heads": 2, "mamba_d_state": 4},
    }
    kind = getattr(transformers, family)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = kind(kind.config_class(**sizes, **own[family]))
        for parameter in model.parameters():
            if not torch.isfinite(parameter).all():
                parameter.normal_()
    return model


def test_one_change_that_is_saved_under_both_names_counts_once(tmp_path: Path) -> None:
    """With ensure_weight_tying, both modules run with W + B A."""
    options = {"target_modules": ["embed_tokens"], "ensure_weight_tying": True}
    model, adapter, _ = adapt("Qwen2ForCausalLM", options, tmp_path)
    ours, files = opened(model, adapter), adapter_of_peft(adapter)
    assert {change.module for change in files.changes} == {"model.embed_tokens", "lm_head"}
    name = "model.embed_tokens.weight"
    change = next(change for change in files.changes if change.embedding)
    expected = open_checkpoint(model).read(name) + files.product(change)
    torch.testing.assert_close(ours.read(name), expected)


def test_changes_reach_both_copies_of_a_tied_tensor_and_one_of_two_own_tensors(tmp_path: Path) -> None:
    model, adapter, merged = adapt("Qwen2ForCausalLM", {"target_modules": ["lm_head"]}, tmp_path)
    expected = open_checkpoint(merged).read("model.embed_tokens.weight")
    for folder, difference in ((tmp_path / "twice", 0.0), (tmp_path / "apart", 1.0)):
        folder.mkdir()
        state = make("Qwen2ForCausalLM").double().state_dict()
        state["model.embed_tokens.weight"] = state["model.embed_tokens.weight"] + difference
        (folder / "config.json").write_bytes((model / "config.json").read_bytes())
        torch.save(state, folder / "pytorch_model.bin")
        ours = AdaptedCheckpoint(open_checkpoint(folder), open_adapter(adapter))
        torch.testing.assert_close(ours.read("lm_head.weight"), expected)
        table = state["model.embed_tokens.weight"] if difference else expected
        torch.testing.assert_close(ours.read("model.embed_tokens.weight"), table)
