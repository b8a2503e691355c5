"""Models merged into a part of a larger model: text models and vision towers into VLMs, as transformers loads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hubmerge.checkpoints import (
    AdaptedCheckpoint,
    MatrixRule,
    align,
    align_models,
    make_plan,
    open_adapter,
    open_checkpoint,
    weight_matrices,
)
from hubmerge.checkpoints.matching.components import patterns_for
from hubmerge.errors import CheckpointError
from tests.checkpoints.adapters.making import train
from tests.checkpoints.composite import COMPOSITES, TEXT, VISION, composite, text_model
from tests.checkpoints.families import save
from tests.checkpoints.files import selection_in
from tests.checkpoints.merging import Merged, merge
from tests.checks import every

FORMS = [(name, original) for name in COMPOSITES for original in (True, False)]


def load(folder: Path) -> Any:
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    return getattr(transformers, config.architectures[0]).from_pretrained(folder)


def language_prefix(rule: MatrixRule) -> str:
    """Return the prefix in the files of the language model inside."""
    return next(prefix for prefix, kind in rule.parts.models.items() if "vis" not in kind and "audio" not in kind)


def check_part(merged: Merged, base: Path, path: str, parts: list[Any]) -> None:
    """Check that the part at `path` is an average, and everything else but the head the base model's."""
    after, before = load(merged.folder), load(base)
    inside = after.get_submodule(path).state_dict()
    for name, value in inside.items():
        expected = torch.stack([part.state_dict()[name].double() for part in parts]).mean(dim=0)
        torch.testing.assert_close(value.double(), expected, rtol=0.0, atol=1e-6, msg=name)
    unchanged = before.state_dict()
    for name, value in after.state_dict().items():
        if not name.startswith(f"{path}.") and "lm_head" not in name:
            assert torch.equal(value, unchanged[name]), name


@pytest.mark.parametrize(("name", "original"), FORMS)
def test_text_models_are_merged_into_the_language_model_inside(tmp_path: Path, name: str, original: bool) -> None:
    path = COMPOSITES[name][2]
    base = save(composite(name), tmp_path / "base", save_original_format=original)
    texts = [text_model(name, seed) for seed in (1, 2)]
    folders = [
        save(text, tmp_path / str(number), save_original_format=number == 0) for number, text in enumerate(texts)
    ]
    merged = merge(tmp_path, base, folders, method="weight_average")
    whole = path == "language_model"
    inside = [text if whole else text.base_model for text in texts]
    check_part(merged, base, path, inside)
    assert (merged.plan.part or "").startswith("Merged part: ")
    kept = {tensor.reason for tensor in merged.plan.kept}
    assert any(reason.startswith("no checkpoint has ") for reason in kept)
    if not whole:
        head = load(merged.folder).lm_head.weight
        expected = torch.stack([text.lm_head.weight.detach() for text in texts]).mean(dim=0)
        torch.testing.assert_close(head.detach(), expected, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize(("name", "original"), [("Qwen3-VL", True), ("LLaVA", False), ("BLIP-2", True)])
def test_a_body_without_a_head_finds_its_place(tmp_path: Path, name: str, original: bool) -> None:
    base = save(composite(name), tmp_path / "base", save_original_format=original)
    body = text_model(name, 1).base_model
    merged = merge(tmp_path, base, [save(body, tmp_path / "body")], method="weight_average")
    path = COMPOSITES[name][2]
    prefix = f"{path}.{text_model(name, 1).base_model_prefix}" if path == "language_model" else path
    check_part(merged, base, prefix, [body])


def test_a_vision_tower_is_merged_into_a_vlm(tmp_path: Path) -> None:
    """A tower alone has the names of its own class, with and without the prefix of transformers 4."""
    from safetensors.torch import load_file, save_file

    for original in (True, False):
        base = save(composite("LLaVA"), tmp_path / f"base {original}", save_original_format=original)
        tower = composite("LLaVA", 3).model.vision_tower
        folder = save(tower, tmp_path / f"tower {original}")
        for prefix in ("", "vision_model."):
            tensors = load_file(folder / "model.safetensors")
            plain = {f"{prefix}{name.removeprefix('vision_model.')}": value for name, value in tensors.items()}
            save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
            place = tmp_path / f"{original} {prefix}"
            place.mkdir()
            merged = merge(place, base, [folder], method="weight_average")
            check_part(merged, base, "model.vision_tower", [tower])


@pytest.mark.parametrize("name", ["Qwen3-VL", "Qwen2.5-VL", "Gemma 3", "LLaVA", "Qwen2-Audio"])
@pytest.mark.parametrize("original", [True, False])
@pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore::FutureWarning")
def test_adapters_of_a_text_model_change_the_language_model_inside(tmp_path: Path, name: str, original: bool) -> None:
    base = save(composite(name).double(), tmp_path / "base", save_original_format=original)
    text = text_model(name, 1).double()
    before = {name: value.clone() for name, value in text.state_dict().items()}
    adapted = train(text, {"target_modules": ["q_proj", "down_proj", "lm_head"]})
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    after = adapted.merge_and_unload().state_dict()
    ours = AdaptedCheckpoint(open_checkpoint(base), open_adapter(tmp_path / "adapter"))
    folder = save(composite(name).double(), tmp_path / "again", save_original_format=original)
    start = open_checkpoint(folder)
    differences = {key: ours.read(key) - start.read(key) for key in ours.changed}
    expected = {key: after[key] - before[key] for key in before if not torch.equal(after[key], before[key])}
    for key, difference in expected.items():
        tail = ".".join(key.split(".")[-4:])
        found = [value for changed, value in differences.items() if changed.endswith(tail)]
        if key not in text.all_tied_weights_keys:
            assert len(found) == 1, key
            torch.testing.assert_close(found[0], difference, rtol=0.0, atol=1e-9)
    assert len(differences) == len(expected.keys() - text.all_tied_weights_keys.keys())
    rule = weight_matrices(start.config, start.tensors)
    part = make_plan(start, [align(start, AdaptedCheckpoint(start, open_adapter(tmp_path / "adapter")))], rule).part
    assert (part or "").startswith("Merged part: ")
    assert language_prefix(rule) in (part or "").split(";")[0]


def test_a_rule_has_one_glob_for_each_part(tmp_path: Path) -> None:
    base = save(composite("Qwen3-VL"), tmp_path / "base")
    whole, text = save(composite("Qwen3-VL", 1), tmp_path / "whole"), save(text_model("Qwen3-VL", 2), tmp_path / "text")
    with pytest.raises(CheckpointError, match=r"model\.visual is missing, which whole has") as caught:
        merge(tmp_path, base, [whole, text])
    assert 'tensors: {exclude: ["model.visual.*"]}' in (caught.value.hint or "")
    opened = open_checkpoint(base)
    inside = [name for name in opened.tensors if name.startswith("model.visual.")]
    assert patterns_for(inside, opened.tensors.keys() - set(inside)) == ["model.visual.*"]


@pytest.mark.parametrize("name", COMPOSITES)
def test_the_class_names_the_models_inside(tmp_path: Path, name: str) -> None:
    with open_checkpoint(save(composite(name), tmp_path / "base")) as opened:
        parts = weight_matrices(opened.config, opened.tensors).parts
        assert len(parts.models) >= 2
        inside = {parts.component_of(tensor) for tensor in opened.tensors}
        assert parts.models.keys() <= inside | {prefix.rpartition(".")[0] for prefix in inside}


def two_towers(folder: Path) -> Path:
    import transformers

    vision = {**VISION, "model_type": "clip_vision_model", "projection_dim": 8}
    text = {**TEXT, "model_type": "llama"}
    config = transformers.VideoLlavaConfig(vision_config=vision, text_config=text, image_token_index=30)
    return save(transformers.VideoLlavaForConditionalGeneration(config), folder)


def test_one_of_two_equal_towers_is_chosen_by_a_rule(tmp_path: Path) -> None:
    base = two_towers(tmp_path / "base")
    tower = save(load(base).model.image_tower, tmp_path / "tower")
    with pytest.raises(CheckpointError, match="match the base model in more than one way") as caught:
        merge(tmp_path / "both", base, [tower])
    rule = selection_in(caught.value)
    merged = merge(tmp_path, base, [tower], selection=rule, method="weight_average")
    chosen = {tensor.name.split("tower.")[0] for tensor in merged.plan.merged}
    assert len(chosen) == 1
    assert not any(chosen.pop() in glob for glob in rule.exclude)


def test_the_type_of_a_checkpoint_decides_between_two_parts(tmp_path: Path) -> None:
    import transformers

    part = {"num_layers": 1, "num_heads": 2, "hidden_size": 16, "block_size": 8, "bias": True}
    part |= {"input_vocab_size": 20, "output_vocab_size": 20}
    config = transformers.BarkConfig(
        semantic_config=part, coarse_acoustics_config=part, fine_acoustics_config=part, codec_config={"hidden_size": 16}
    )
    base = save(transformers.BarkModel(config), tmp_path / "base")
    for seed, name in enumerate(("semantic", "coarse_acoustics")):
        model = load(base).get_submodule(name)
        torch.manual_seed(seed)
        place = tmp_path / name
        place.mkdir()
        merged = merge(place, base, [save(model, place / "tuned")], method="weight_average")
        assert every(tensor.name.startswith(f"{name}.") for tensor in merged.plan.merged)


@pytest.mark.parametrize("name", ["Qwen3-VL", "Qwen2.5-VL", "LLaVA", "Idefics 3"])
@pytest.mark.parametrize("original", [True, False])
def test_a_vlm_is_merged_into_the_text_model_inside_with_one_glob_for_each_part(
    tmp_path: Path, name: str, original: bool
) -> None:
    base = save(text_model(name, 0), tmp_path / "base")
    whole = composite(name, 1)
    folder = save(whole, tmp_path / "whole", save_original_format=original)
    cause = r"it has the base model .* inside, and other parts beside it: .* not in the base model"
    with pytest.raises(CheckpointError, match=cause) as caught:
        merge(tmp_path / "all", base, [folder])
    rule = selection_in(caught.value)
    assert len(rule.exclude) <= 2  # the vision tower, and the module that connects it
    merged = merge(tmp_path, base, [folder], selection=rule, method="weight_average")
    inside = whole.get_submodule(COMPOSITES[name][2]).state_dict()
    after = load(merged.folder).base_model.state_dict()
    for key, value in inside.items():
        torch.testing.assert_close(after[key], value, rtol=0.0, atol=1e-6, msg=key)


def test_a_tower_with_a_classifier_is_merged_into_a_vlm(tmp_path: Path) -> None:
    import transformers

    config = transformers.CLIPConfig(vision_config={**VISION, "projection_dim": 8}, text_config=TEXT, num_labels=3)
    tuned = transformers.CLIPForImageClassification(config)
    base = save(composite("LLaVA"), tmp_path / "base")
    with open_checkpoint(base) as opened, open_checkpoint(save(tuned, tmp_path / "tuned")) as checkpoint:
        rule = weight_matrices(opened.config, opened.tensors)
        models = align_models(opened, rule, [checkpoint], own_heads=True)
        assert {one.name for one in models.aligned[0].ignored} == {"classifier.weight", "classifier.bias"}
        plan = make_plan(opened, models.aligned, rule)
        assert plan.merged
        assert every("vision_tower" in tensor.name for tensor in plan.merged)
