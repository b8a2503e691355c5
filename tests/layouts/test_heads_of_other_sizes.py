"""Classification heads for another number of classes than that of the base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import hubmerge as package
from hubmerge.checkpoints import open_checkpoint
from hubmerge.checkpoints.planning.task_heads import find_head
from tests.checkpoints.families import LANGUAGE, VISION
from tests.checkpoints.files import random_tensors, write_folder
from tests.layouts.classifiers import BERT, ONE, TWO, Command, make_model
from tests.run.test_warnings import write

RESIZED = {
    "BertForSequenceClassification": LANGUAGE,
    "RobertaForSequenceClassification": LANGUAGE,
    "ViTForImageClassification": VISION,
    "LlamaForSequenceClassification": {**LANGUAGE, "tie_word_embeddings": False},
}


def save_tuned(task_class: str, base: Any, folder: Path, labels: list[str], seed: int) -> Path:
    """Save a fine-tune whose head is for other classes than the base model's."""
    tuned = make_model(task_class, RESIZED[task_class], seed, labels)
    body = dict(base.base_model.state_dict())
    for key, value in tuned.base_model.state_dict().items():
        if value.is_floating_point():
            change = torch.randn(value.shape, generator=torch.Generator().manual_seed(seed))
            value.copy_(body[key] + 0.02 * change)
    tuned.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("task_class", list(RESIZED))
def test_a_head_for_other_numbers_of_classes_is_kept_and_the_others_are_published(
    hubmerge: Command, tmp_path: Path, task_class: str
) -> None:
    import transformers

    base = make_model(task_class, RESIZED[task_class], 0, ["a", "b", "c", "d"])
    base.save_pretrained(tmp_path / "base")
    labels = {"one": ONE, "two": TWO}
    folders = [
        save_tuned(task_class, base, tmp_path / name, classes, seed)
        for seed, (name, classes) in enumerate(labels.items(), start=1)
    ]
    recipe = write(tmp_path, tmp_path / "base", *folders, merge_method="weight_average")
    status, text, errors = hubmerge("plan", recipe)
    assert status == 0, errors
    assert "the checkpoints have heads of their own: the base model's is kept" in text
    assert "the checkpoint's own head: kept beside the merged model, in heads/" in text
    status, text, errors = hubmerge("run", recipe, "--out", tmp_path / "out")
    assert status == 0, errors
    found = getattr(transformers, task_class)
    merged = found.from_pretrained(tmp_path / "out").state_dict()
    tuned = [found.from_pretrained(folder).state_dict() for folder in folders]
    inside = set(base.base_model.state_dict())
    for key, value in merged.items():
        plain = key.removeprefix(f"{base.base_model_prefix}.")
        if plain in inside and value.is_floating_point():
            torch.testing.assert_close(value, (tuned[0][key] + tuned[1][key]) / 2, rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(value, base.state_dict()[key]), key
    for number, (name, classes) in enumerate(labels.items()):
        loaded = package.load_head(tmp_path / "out", name)
        assert list(loaded.config.id2label.values()) == classes
        head = load_file(tmp_path / "out" / "heads" / f"{name}.safetensors")
        assert {key.split(".")[0] for key in head} <= {"classifier", "score"}
        for key in head:
            assert torch.equal(loaded.state_dict()[key], tuned[number][key]), key


def test_heads_of_another_shape_in_some_checkpoints_only_are_refused_with_the_rule(
    hubmerge: Command, tmp_path: Path
) -> None:
    base = make_model(BERT, LANGUAGE, 0, ONE)
    base.save_pretrained(tmp_path / "base")
    same = save_tuned(BERT, base, tmp_path / "same", ONE, 1)
    other = save_tuned(BERT, base, tmp_path / "other", TWO, 2)
    status, text, errors = hubmerge("plan", write(tmp_path, tmp_path / "base", same, other))
    assert status == 4
    assert "classifier has another shape than in the base model and in" in text + errors
    assert 'tensors: {exclude: ["classifier.*"]}' in text + errors


def test_tensors_of_another_shape_outside_of_a_head_are_refused(hubmerge: Command, tmp_path: Path) -> None:
    base = make_model(BERT, LANGUAGE, 0, ONE)
    base.save_pretrained(tmp_path / "base")
    tuned = make_model(BERT, {**LANGUAGE, "vocab_size": 22}, 1, TWO)
    tuned.save_pretrained(tmp_path / "tuned")
    status, text, errors = hubmerge("plan", write(tmp_path, tmp_path / "base", tmp_path / "tuned"))
    assert status == 4
    assert "word_embeddings.weight" in text + errors


def test_heads_of_timm_for_another_number_of_classes_are_found(tmp_path: Path) -> None:
    body = {f"blocks.{number}.attn.qkv.weight": (12, 4) for number in range(3)}
    config = {"architecture": "vit_tiny", "pretrained_cfg": {"classifier": "head"}}
    tensors = [random_tensors({**body, "head.weight": (rows, 4), "head.bias": (rows,)}, rows) for rows in (10, 3)]
    base = write_folder(tmp_path / "base", tensors[0], {**config, "num_classes": 10})
    one = write_folder(tmp_path / "one", tensors[1], {**config, "num_classes": 3})
    with open_checkpoint(base) as opened, open_checkpoint(one) as checkpoint:
        assert set(find_head(opened, checkpoint)) == {"head.weight", "head.bias"}
