"""Tests of merges from files to files, for every family of models in docs/layouts.md."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubmerge.checkpoints import Selection, open_checkpoint
from hubmerge.errors import CheckpointError
from hubmerge.methods import TensorInput, method_named
from tests.checkpoints.families import FAMILIES, base, make, save, save_state_dict, tuned
from tests.checkpoints.merging import as_oracle_sees, merge, oracle_step, read_all
from tests.checks import every
from tests.oracle import distance

HEADS = [name for name in FAMILIES if name.endswith("Classification")]

# How many weight matrices the plan must find, experts that lie in one tensor counted once.
MATRICES = {
    "CLIPModel": 2 * 6 + 2,
    "CLIPVisionModel": 6,
    "CLIPVisionModelWithProjection": 7,
    "ViTForImageClassification": 7,
    "Dinov2ForImageClassification": 7,
    "SiglipModel": 2 * 6 + 4 + 1,
    "BertForSequenceClassification": 8,
    "RobertaForSequenceClassification": 8,
    "T5ForConditionalGeneration": 6 + 10,
    "GPT2LMHeadModel": 4,
    "LlamaForCausalLM": 8,
    "Qwen2ForCausalLM": 7,
    "Qwen3ForCausalLM": 7,
    "MixtralForCausalLM": 4 + 1 + 6 + 1,
    "Qwen3MoeForCausalLM": 4 + 1 + 6 + 1,
    "GraniteMoeForCausalLM": 4 + 1 + 2 + 1,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_two_steps_agree_with_the_oracle(tmp_path: Path, family: str) -> None:
    folders = [save(base(family), tmp_path / "base")]
    folders += [save(tuned(family, seed), tmp_path / f"tuned{seed}") for seed in (1, 2)]
    merged = merge(tmp_path, folders[0], folders[1:], out_dtype=torch.float64)
    before, *checkpoints = map(read_all, folders)
    expected = oracle_step(merged.plan, before, checkpoints)
    found = as_oracle_sees(merged.values(), merged.plan)
    moved = distance(expected.merged, as_oracle_sees(before, merged.plan))
    assert distance(found, expected.merged) <= 1e-9 * moved
    assert merged.stats.scale == pytest.approx(expected.scale, rel=1e-10)
    ranks = [rank for tensor in merged.stats.tensors for rank in tensor.ranks]
    assert sorted(ranks) == sorted(expected.ranks.values())
    actions = list(merged.actions().values())
    assert actions.count("merge-matrix") == MATRICES[family]
    assert "keep" not in actions
    assert merged.rounding == 0.0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merge_of_one_checkpoint_returns_the_checkpoint(tmp_path: Path, family: str) -> None:
    checkpoint = save(tuned(family, 1), tmp_path / "tuned")
    merged = merge(tmp_path, save(base(family), tmp_path / "base"), [checkpoint])
    expected, found = read_all(checkpoint), merged.values()
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        torch.testing.assert_close(found[name], value, rtol=2e-7, atol=1e-8)


@pytest.mark.parametrize("family", ["ViTForImageClassification", "Dinov2ForImageClassification", "CLIPVisionModel"])
@pytest.mark.parametrize("pickled", ["base", "checkpoint"])
def test_a_state_dict_with_the_names_of_the_class_in_memory(tmp_path: Path, family: str, pickled: str) -> None:
    ordinary = merge(
        tmp_path / "ordinary",
        save(base(family), tmp_path / "base"),
        [save(tuned(family, seed), tmp_path / f"tuned{seed}") for seed in (1, 2)],
    )
    first = (save_state_dict if pickled == "base" else save)(make(family), tmp_path / "base2")
    second = (save_state_dict if pickled == "checkpoint" else save)(tuned(family, 1), tmp_path / "one2")
    merged = merge(tmp_path / "pickled", first, [second, tmp_path / "tuned2"])
    expected = ordinary.values()
    if pickled == "checkpoint":
        found = merged.values()
        assert set(found) == set(expected)
        assert every(torch.equal(found[name], value) for name, value in expected.items())
    else:
        import transformers

        models = [getattr(transformers, family).from_pretrained(each.folder) for each in (ordinary, merged)]
        states = [model.state_dict() for model in models]
        assert every(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("family", HEADS)
def test_heads_for_other_classes_are_refused_and_kept_by_a_rule(tmp_path: Path, family: str) -> None:
    first, second = save(base(family), tmp_path / "base"), save(tuned(family, 1), tmp_path / "tuned")
    other = save(make(family, 3, id2label={0: "red", 1: "blue", 2: "grey"}), tmp_path / "other classes")
    wider = save(make(family, 4, id2label={n: f"class {n}" for n in range(5)}), tmp_path / "more classes")
    unnamed = save(make(family, 5, id2label={n: f"LABEL_{n}" for n in range(3)}), tmp_path / "unnamed")
    for number, (checkpoint, message) in enumerate(
        [(other, "for red, blue, grey"), (wider, "5"), (unnamed, "does not name")]
    ):
        with pytest.raises(CheckpointError, match=r"classifier\.") as caught:
            merge(tmp_path / f"refused{number}", first, [second, checkpoint])
        assert message in caught.value.message
        assert 'exclude: ["' in (caught.value.hint or "")
    rule = Selection(exclude=("classifier.*",))
    merged = merge(tmp_path / "kept", first, [second, other, wider, unnamed], selection=rule)
    values, before = merged.values(), read_all(first)
    heads = [name for name in before if name.startswith("classifier")]
    assert heads
    for name in before:
        assert torch.equal(values[name], before[name]) is (name in heads), name


def test_a_body_alone_leaves_the_head_to_the_base_model(tmp_path: Path) -> None:
    from transformers import BertModel

    body = BertModel.from_pretrained(save(tuned("BertForSequenceClassification", 1), tmp_path / "whole"))
    merged = merge(
        tmp_path,
        save(base("BertForSequenceClassification"), tmp_path / "base"),
        [save(body, tmp_path / "body")],
        selection=Selection(exclude=("*pooler*",)),
    )
    kept = {tensor.name: tensor.reason for tensor in merged.plan.kept}
    assert kept["classifier.weight"] == "no checkpoint has classifier"


@pytest.mark.parametrize("family", ["T5ForConditionalGeneration", "GPT2LMHeadModel", "Qwen2ForCausalLM"])
@pytest.mark.parametrize("twice", ["base", "checkpoint", "both"])
def test_tied_weights_stay_tied_whether_they_are_stored_once_or_twice(tmp_path: Path, family: str, twice: str) -> None:
    folders = {"base": save(base(family), tmp_path / "base"), "checkpoint": save(tuned(family, 1), tmp_path / "tuned")}
    expected = merge(tmp_path / "once", *_pair(folders))
    for name, model in (("base", make(family)), ("checkpoint", tuned(family, 1))):
        if twice in {name, "both"}:
            folders[name] = save_state_dict(model, tmp_path / f"{name} twice")
            assert "lm_head.weight" in open_checkpoint(folders[name]).tensors
    merged = merge(tmp_path / "twice", *_pair(folders))
    found, values = expected.values(), merged.values()
    assert set(found) == set(values)
    assert every(torch.equal(found[name], value) for name, value in values.items())
    assert "lm_head.weight" not in values


def _pair(folders: dict[str, Path]) -> tuple[Path, list[Path]]:
    return folders["base"], [folders["checkpoint"]]


def test_an_untied_head_under_a_tied_base_is_merged_as_a_tensor_of_its_own(tmp_path: Path) -> None:
    model = tuned("Qwen2ForCausalLM", 1)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["lm_head.weight"] += 1.0
    folder = save_state_dict(model, tmp_path / "untied")
    torch.save(state, folder / "pytorch_model.bin")
    merged = merge(tmp_path, save(base("Qwen2ForCausalLM"), tmp_path / "base"), [folder])
    values = merged.values()
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        torch.testing.assert_close(values[name], state[name])


def test_transposed_matrices_give_transposed_results() -> None:
    """GPT-2 stores its matrices transposed: the projection of a transpose is the transpose of the projection."""
    generator = torch.Generator().manual_seed(0)
    for shape in ((6, 9), (9, 6), (5, 5)):
        accumulated, change = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
        method = method_named("opcm")
        plain = method.absorb_matrix(TensorInput(accumulated, change, method.Parameters(), step=2))
        transposed = TensorInput(accumulated.T.contiguous(), change.T.contiguous(), method.Parameters(), step=2)
        result = method.absorb_matrix(transposed)
        assert plain.rank == result.rank
        torch.testing.assert_close(plain.accumulated, result.accumulated.T, rtol=1e-10, atol=1e-12)


def test_experts_have_ranks_of_their_own(tmp_path: Path) -> None:
    family = "GraniteMoeForCausalLM"
    folders = [save(tuned(family, seed), tmp_path / f"tuned{seed}") for seed in (1, 2)]
    merged = merge(tmp_path, save(base(family), tmp_path / "base"), folders)
    fused = [t for t in merged.stats.tensors if t.name.endswith(("input_linear.weight", "output_linear.weight"))]
    assert [len(tensor.ranks) for tensor in fused] == [2, 2]
    assert every(tensor.rank is None and tensor.directions == 16 for tensor in fused if "input" in tensor.name)
    assert every(0.0 < tensor.removed_share < 1.0 for tensor in fused)


@pytest.mark.parametrize("family", ["MixtralForCausalLM", "Qwen3MoeForCausalLM"])
def test_experts_in_another_form_are_refused_and_both_hints_work(tmp_path: Path, family: str) -> None:
    import transformers

    first, second = save(base(family), tmp_path / "base"), save(tuned(family, 1), tmp_path / "tuned")
    joined = save(tuned(family, 2), tmp_path / "joined", save_original_format=False)
    with pytest.raises(
        CheckpointError, match="joined: it stores all experts of a layer joined, expected each expert in"
    ) as caught:
        merge(tmp_path, first, [second, joined])
    assert "model.load_state_dict(tensors) and model.save_pretrained(folder)" in (caught.value.hint or "")
    model = getattr(transformers, family)(transformers.AutoConfig.from_pretrained(joined))
    model.load_state_dict(read_all(joined))
    merge(tmp_path / "apart", first, [second, save(model, tmp_path / "split")])
    with pytest.raises(
        CheckpointError,
        match="tuned: it stores each expert in tensors of its own, expected all experts of a layer joined",
    ) as caught:
        merge(tmp_path, joined, [second])
    assert "model.save_pretrained(new_folder, save_original_format=False)" in (caught.value.hint or "")
    model = getattr(transformers, family).from_pretrained(second)
    merge(tmp_path / "together", joined, [save(model, tmp_path / "joined too", save_original_format=False)])


@pytest.mark.parametrize("older", ["base", "tuned", "both"])
def test_older_names_of_weight_normalization(tmp_path: Path, older: str) -> None:
    """Files of torch before 2.0 have `weight_g` and `weight_v` in place of two parametrizations."""
    import transformers

    config = transformers.HubertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_kernel=(3, 3),
        conv_stride=(2, 2),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    values: dict[str, dict[str, torch.Tensor]] = {}
    for seed, name in enumerate(("base", "tuned")):
        torch.manual_seed(seed)
        folder = save(transformers.HubertModel(config), tmp_path / name)
        values[name] = read_all(folder)
        if older in (name, "both"):
            names = {one: _in_older_files(one) for one in values[name]}
            assert sum(one != other for one, other in names.items()) == 2
            stored = {names[one]: value.contiguous() for one, value in load_file(folder / "model.safetensors").items()}
            save_file(stored, folder / "model.safetensors", {"format": "pt"})
    merged = merge(tmp_path, tmp_path / "base", [tmp_path / "tuned"], method="weight_average")
    found = merged.values()
    for name, value in values["tuned"].items():
        own = name if older == "tuned" else _in_older_files(name)
        torch.testing.assert_close(found[own], value, rtol=2e-7, atol=1e-8, check_dtype=False)


def _in_older_files(name: str) -> str:
    for parametrized, older in (("original0", "weight_g"), ("original1", "weight_v")):
        name = name.replace(f"parametrizations.weight.{parametrized}", older)
    return name
