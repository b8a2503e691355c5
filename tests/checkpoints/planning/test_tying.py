"""Streams in which only some models tie head and embeddings, as transformers loads each of them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubmerge.checkpoints import Selection, align_models, check_ties, make_plan, open_checkpoint, weight_matrices
from hubmerge.errors import CheckpointError
from tests.checkpoints.families import make, save
from tests.checkpoints.merging import Merged, merge

HEADS = {  # head and table
    "LlamaForCausalLM": ("lm_head.weight", "model.embed_tokens.weight"),
    "GPT2LMHeadModel": ("lm_head.weight", "transformer.wte.weight"),
}


def tuned(family: str, seed: int, folder: Path, *, tied: bool, **changes: Any) -> Path:
    """Save a model that differs from `make(family)` in every tensor, with a head of its own unless it is tied."""
    start = make(family, tie_word_embeddings=True, **changes).state_dict()
    model = make(family, tie_word_embeddings=tied, **changes)
    model.load_state_dict({name: value.clone() for name, value in start.items()})
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return save(model, folder)


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    """Return all parameters that transformers has after loading a folder, under each of their names."""
    import transformers

    config = json.loads((folder / "config.json").read_text())
    model = getattr(transformers, config["architectures"][0]).from_pretrained(folder)
    return {name: value.detach() for name, value in model.named_parameters(remove_duplicate=False)}


def check_average(merged: Merged, checkpoints: list[Path]) -> None:
    """Check that transformers loads from the merged model the average of what it loads from the checkpoints."""
    values, models = loaded(merged.folder), [loaded(folder) for folder in checkpoints]
    for name, value in values.items():
        expected = torch.stack([model[name].double() for model in models]).mean(dim=0)
        torch.testing.assert_close(value.double(), expected, rtol=0.0, atol=1e-6, msg=name)


@pytest.mark.parametrize("family", HEADS)
def test_every_mix_of_tied_and_untied_models_is_merged_as_transformers_loads_them(tmp_path: Path, family: str) -> None:
    """All models tied, or all models with the values that each has under both names."""
    folders = {
        (place, tied): tuned(family, seed, tmp_path / f"{place} {tied}", tied=tied)
        for seed, place in enumerate(("base", "first", "second"))
        for tied in (True, False)
    }
    for number, ties in enumerate(itertools.product((True, False), repeat=3)):
        base, *checkpoints = (
            folders[place, tied] for place, tied in zip(("base", "first", "second"), ties, strict=True)
        )
        (tmp_path / str(number)).mkdir()
        merged = merge(tmp_path / str(number), base, checkpoints, method="weight_average")
        check_average(merged, checkpoints)
        head, table = HEADS[family]
        assert (head in merged.values()) is not all(ties)
        assert json.loads((merged.folder / "config.json").read_text())["tie_word_embeddings"] is all(ties)
        assert (merged.actions().get(head) == "merge-matrix") is not all(ties)
        assert merged.actions()[table] == "merge-other"
    rule = Selection(exclude=("lm_head.*",))
    kept = merge(tmp_path, folders["base", True], [folders["first", False]], selection=rule, method="weight_average")
    assert HEADS[family][0] not in kept.values()


def with_head(folder: Path, copy: Path, head: str, table: str, change: float, **config: Any) -> Path:
    """Save a copy of a tied model that has its table under both names, the head with a change."""
    copy.mkdir()
    tensors = load_file(folder / "model.safetensors")
    tensors[head] = tensors[table] + change
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    settings = {**json.loads((folder / "config.json").read_text()), **config}
    (copy / "config.json").write_text(json.dumps(settings))
    return copy


@pytest.mark.parametrize("place", ["base", "first"])
def test_values_decide_where_the_config_ties_what_the_files_have_twice(tmp_path: Path, place: str) -> None:
    family, names = "LlamaForCausalLM", HEADS["LlamaForCausalLM"]
    folders = {name: tuned(family, seed, tmp_path / name, tied=True) for seed, name in enumerate(("base", "first"))}
    for change in (0.0, 0.5):
        twice = with_head(folders[place], tmp_path / f"{place} {change}", *names, change)
        base, checkpoint = ({**folders, place: twice}[name] for name in ("base", "first"))
        (tmp_path / str(change)).mkdir()
        merged = merge(tmp_path / str(change), base, [checkpoint], method="weight_average")
        check_average(merged, [checkpoint])
        assert (names[0] in merged.values()) is (change != 0.0)


def test_a_tied_class_default_counts_like_a_config_that_ties(tmp_path: Path) -> None:
    base = tuned("Qwen2ForCausalLM", 0, tmp_path / "base", tied=False)
    folder = tuned("GPT2LMHeadModel", 0, tmp_path / "gpt2", tied=True)
    settings = json.loads((folder / "config.json").read_text())
    del settings["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps(settings))
    untied = tuned("GPT2LMHeadModel", 1, tmp_path / "untied", tied=False)
    for number, (first, second) in enumerate([(folder, untied), (untied, folder)]):
        (tmp_path / str(number)).mkdir()
        check_average(merge(tmp_path / str(number), first, [second], method="weight_average"), [second])
    # Without a config, a checkpoint of an untied model lacks its head, which stays the base model's.
    bare = tuned("Qwen2ForCausalLM", 1, tmp_path / "bare", tied=True)
    (bare / "config.json").unlink()
    merged = merge(tmp_path, base, [bare])
    assert {tensor.name: tensor.reason for tensor in merged.plan.kept} == {
        "lm_head.weight": "no checkpoint has lm_head"
    }


def test_a_checkpoint_without_the_head_of_its_config_is_named(tmp_path: Path) -> None:
    base, folder = (tuned("Qwen2ForCausalLM", seed, tmp_path / str(seed), tied=True) for seed in (0, 1))
    assert not aligned(base, folder).notes
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "tie_word_embeddings": False}))
    assert aligned(base, folder).notes == (
        "1: config.json does not tie the head, which is not in the files: it is tied in the merged model",
    )


def test_a_body_alone_leaves_the_head_to_an_untied_base_model(tmp_path: Path) -> None:
    import transformers

    base = tuned("LlamaForCausalLM", 0, tmp_path / "base", tied=False)
    body = transformers.LlamaModel.from_pretrained(tuned("LlamaForCausalLM", 1, tmp_path / "tied", tied=True))
    merged = merge(tmp_path, base, [save(body, tmp_path / "body")], method="weight_average")
    assert [tensor.name for tensor in merged.plan.kept] == ["lm_head.weight"]


def aligned(base: Path, *checkpoints: Path, untied: bool | None = None) -> Any:
    opened = open_checkpoint(base, "base")
    rule = weight_matrices(opened.config, opened.tensors)
    return align_models(opened, rule, [open_checkpoint(each, each.name) for each in checkpoints], untied=untied)


def untie(model: Any, seed: int = 5) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model.lm_head.weight = torch.nn.Parameter(torch.randn(model.lm_head.weight.shape))
    return model


def test_heads_of_t5_are_merged_where_both_scale_their_input_alike(tmp_path: Path) -> None:
    """T5 1.1 has a head of its own, and its config ties embeddings all the same; T5 scales the input of a tied head."""
    family = "T5ForConditionalGeneration"
    first, second = (
        save(untie(make(family, seed, tie_word_embeddings=False)), tmp_path / str(seed)) for seed in (0, 1)
    )
    assert json.loads((first / "config.json").read_text())["tie_word_embeddings"]
    merged = merge(tmp_path, first, [second], method="weight_average")
    check_average(merged, [second])
    assert merged.actions()["lm_head.weight"] == "merge-matrix"
    assert "ties it, and transformers 5 does not because the values differ" in aligned(first, second).notes[0]
    tied, scaled = save(make(family), tmp_path / "tied"), save(untie(make(family, 2)), tmp_path / "scaled")
    check_average(merge(scaled, tied, [scaled], method="weight_average"), [scaled])
    with pytest.raises(CheckpointError, match="scale_decoder_outputs is false, expected true as in the base") as caught:
        aligned(tied, first)
    assert 'tensors: {exclude: ["lm_head.weight"]}' in (caught.value.hint or "")
    assert caught.value.context.tensor == "lm_head.weight"
    for other in (tied, scaled):
        with pytest.raises(CheckpointError, match="scale_decoder_outputs is true, expected false as in the base"):
            aligned(first, other)


def test_a_class_that_uses_a_tied_head_in_another_way_is_refused(tmp_path: Path) -> None:
    import transformers

    sizes: dict[str, Any] = {
        "d_model": 8,
        "d_kv": 4,
        "d_ff": 8,
        "num_layers": 2,
        "num_sparse_encoder_layers": 1,
        "num_heads": 2,
    }
    config = {**sizes, "num_sparse_decoder_layers": 1, "num_experts": 2, "vocab_size": 12}
    kind = transformers.SwitchTransformersForConditionalGeneration
    folders = [
        save(kind(transformers.SwitchTransformersConfig(**config, tie_word_embeddings=tied)), tmp_path / f"{tied}")
        for tied in (True, False)
    ]
    with pytest.raises(CheckpointError, match="tie_word_embeddings is false, expected true as in the base model"):
        aligned(*folders)
    with pytest.raises(CheckpointError, match="tie_word_embeddings is true, expected false as in the base model"):
        aligned(*reversed(folders))


def test_nested_configs_are_untied_too(tmp_path: Path) -> None:
    import transformers

    vision: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {**vision, "num_key_value_heads": 2, "vocab_size": 20, "model_type": "llama"}
    vision |= {"image_size": 8, "patch_size": 4, "projection_dim": 8, "model_type": "clip_vision_model"}
    folders = []
    for tied in (True, False):
        settings = {**text, "tie_word_embeddings": tied}
        config = transformers.LlavaConfig(
            text_config=settings, vision_config=vision, image_token_index=19, tie_word_embeddings=tied
        )
        torch.manual_seed(int(tied))
        model = transformers.LlavaForConditionalGeneration(config)
        folders.append(save(model, tmp_path / str(tied), save_original_format=not tied))
    found = aligned(*folders)
    assert found.untied
    assert found.base.config["tie_word_embeddings"] is False
    assert found.base.config["text_config"]["tie_word_embeddings"] is False
    merged = merge(tmp_path, folders[0], [folders[1]], method="weight_average")
    check_average(merged, [folders[1]])


def test_steps_that_were_merged_as_tied_models_stay_tied(tmp_path: Path) -> None:
    base, tied = (tuned("Qwen2ForCausalLM", seed, tmp_path / str(seed), tied=True) for seed in (0, 1))
    own = tuned("Qwen2ForCausalLM", 2, tmp_path / "own", tied=False)
    with pytest.raises(CheckpointError, match=r"own: 'lm_head\.weight' is .* and in the steps merged so far"):
        aligned(base, own, untied=False)
    found = aligned(base, tied, untied=True)
    names = {tensor.name for tensor in make_plan(found.base, found.aligned, found.rule).merged}
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= names
    assert aligned(base, tied).rule.ties == {"lm_head.weight": "model.embed_tokens.weight"}
    assert found.rule.ties == {}
    for checkpoint in found.aligned:
        check_ties(checkpoint, make_plan(found.base, found.aligned, found.rule))
