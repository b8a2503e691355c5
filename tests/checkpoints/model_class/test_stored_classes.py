"""Classes of transformers are looked up once, and again where config or names differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubmerge.checkpoints import open_checkpoint
from hubmerge.checkpoints.model_class.class_lookup import UnknownClass
from hubmerge.checkpoints.model_class.model_class import find_model_class, known_class
from tests.checkpoints.models import save as save_model
from tests.support.stored import stored_answers

pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.mark.parametrize("family", ["CLIPModel", "BertForMaskedLM", "GPT2LMHeadModel", "MixtralForCausalLM"])
def test_a_class_is_stored_with_all_its_fields(family: str, tmp_path: Path) -> None:
    with open_checkpoint(save_model(family, tmp_path / family), family) as checkpoint:
        config, names = checkpoint.config, list(checkpoint.tensors)
    assert known_class(config, names) is None
    found = find_model_class(config, names)
    assert known_class(config, names) == found
    assert find_model_class(config, names[::-1]) == found
    assert known_class(config, names[1:]) is None
    assert known_class({**config, "hidden_size": 8, "n_embd": 8, "projection_dim": 8}, names) is None


@pytest.mark.parametrize("damage", ['{"answer": {}}', '{"answer": {"name": "x", "shapes": 3}}', '{"answer": [1]}'])
def test_a_damaged_class_is_looked_up_again(damage: str, tmp_path: Path) -> None:
    with open_checkpoint(save_model("CLIPModel", tmp_path / "model"), "it") as checkpoint:
        found = find_model_class(checkpoint.config, checkpoint.tensors)
        for file in stored_answers():
            file.write_text(damage)
        assert find_model_class(checkpoint.config, checkpoint.tensors) == found


def test_a_class_that_cannot_be_built_is_not_stored() -> None:
    for _ in range(2):
        found = find_model_class({"model_type": "clip", "vision_config": {"num_attention_heads": 7}}, ["a"])
        assert isinstance(found, UnknownClass)
        assert "cannot build 'clip' from its config" in found.reason
    assert not stored_answers()
