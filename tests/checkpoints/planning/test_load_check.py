"""Tests of the load check, which predicts from config and names what transformers loads."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from hubmerge.checkpoints import check_loads, open_checkpoint
from hubmerge.errors import CheckpointError
from tests.checkpoints.models import CONFIGS, save

Shapes = dict[str, tuple[int, ...]]


def stored(name: str, folder: Path, **changes: Any) -> tuple[dict[str, Any], Shapes]:
    """Return the config, with changes, and the shapes of a saved model."""
    with open_checkpoint(save(name, folder)) as checkpoint:
        shapes = {tensor: info.shape for tensor, info in checkpoint.tensors.items()}
        return {**checkpoint.config, **changes}, shapes


def notes_on(config: dict[str, Any], shapes: Shapes) -> tuple[str, ...]:
    return check_loads(config, shapes, shapes, "base")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_that_loads_completely_has_no_notes(name: str, tmp_path: Path) -> None:
    assert notes_on(*stored(name, tmp_path)) == ()


def test_missing_and_unused_weights_of_the_original_are_notes(tmp_path: Path) -> None:
    config, shapes = stored("BertForSequenceClassification", tmp_path, architectures=["BertForMaskedLM"])
    shapes |= {"bert.embeddings.position_ids": (1, 16), "bert.encoder.layer.0.attention.masked_bias": ()}
    missing, unused = notes_on(config, shapes)
    assert missing.startswith("base lacks cls.predictions.")
    assert "which BertForMaskedLM initializes randomly on load" in missing
    assert unused == (
        "BertForMaskedLM does not use bert.encoder.layer.0.attention.masked_bias, bert.pooler.dense.bias, "
        "bert.pooler.dense.weight and 2 more of base; they are written like all others"
    )
    with open_checkpoint(save("BertForSequenceClassification", tmp_path / "model")) as checkpoint:
        assert set(checkpoint.tensors) <= set(shapes)
    config_file = tmp_path / "model" / "config.json"
    config_file.write_text(json.dumps(config))
    _, found = transformers.BertForMaskedLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert {name.split(".")[0] for name in found["missing_keys"]} == {"cls"}
    assert set(found["unexpected_keys"]) == {"bert.pooler.dense.bias", "bert.pooler.dense.weight"} | {
        name for name in shapes if name.startswith("classifier")
    }


def test_transformers_prints_nothing(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # an empty memo
    config, shapes = stored("BertForSequenceClassification", tmp_path, architectures=["BertForMaskedLM"])
    capfd.readouterr()
    verbosity = transformers.utils.logging.get_verbosity()
    with caplog.at_level(logging.WARNING):
        assert notes_on(config, shapes)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert transformers.utils.logging.get_verbosity() == verbosity


def test_weights_that_only_the_merged_model_lacks_are_refused(tmp_path: Path) -> None:
    config, shapes = stored("LlamaForCausalLM", tmp_path)
    written = {name: shape for name, shape in shapes.items() if name != "lm_head.weight"}
    assert notes_on(config, written)
    with pytest.raises(CheckpointError, match=r"^base: the merged model would lack lm_head\.weight: tied copies"):
        check_loads(config, written, shapes, "base")
    assert check_loads({**config, "tie_word_embeddings": True}, written, shapes, "base") == ()


@pytest.mark.parametrize(
    ("name", "key", "layer"),
    [
        ("LlamaForCausalLM", "num_hidden_layers", "model.layers"),
        ("ViTForImageClassification", "num_hidden_layers", "vit.layers"),
        ("GPT2LMHeadModel", "n_layer", "transformer.h"),
        ("T5ForConditionalGeneration", "num_layers", "encoder.block"),
        ("MixtralForCausalLM", "num_hidden_layers", "model.layers"),
    ],
)
def test_a_config_with_another_number_of_layers_is_refused(name: str, key: str, layer: str, tmp_path: Path) -> None:
    config, shapes = stored(name, tmp_path)
    with pytest.raises(CheckpointError, match=rf"^base/config.json: describes layers .* do not have: {layer}\.2\n"):
        notes_on({**config, key: 3}, shapes)
    with pytest.raises(CheckpointError, match=rf"layers that it does not describe: {layer}\.1\n") as caught:
        notes_on({**config, key: 1}, shapes)
    assert caught.value.hint == "restore the config.json that was saved with the weights"


def test_a_missing_stack_of_layers_is_refused(tmp_path: Path) -> None:
    config, shapes = stored("CLIPModel", tmp_path)
    tower = {name: shape for name, shape in shapes.items() if not name.startswith("text_model.")}
    with pytest.raises(CheckpointError, match=r"weights do not have: text_model\.encoder\.layers\.0, text_model"):
        notes_on(config, tower)


def test_mismatched_shapes_are_refused(tmp_path: Path) -> None:
    config, shapes = stored("LlamaForCausalLM", tmp_path, vocab_size=61)
    with pytest.raises(CheckpointError, match=r"'lm_head.weight' is 60 x 32 in the files and 61 x 32 by the config, '"):
        notes_on(config, shapes)


@pytest.mark.parametrize("name", ["BertModel", "GPT2LMHeadModel", "T5ForConditionalGeneration"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module."])
def test_a_prefix_that_hides_all_weights_is_named(name: str, prefix: str, tmp_path: Path) -> None:
    config, shapes = stored(name, tmp_path)
    with pytest.raises(CheckpointError, match=rf"^base: all tensor names begin with '{prefix}', so {name} ") as caught:
        notes_on(config, {prefix + tensor: shape for tensor, shape in shapes.items()})
    assert "model.module.save_pretrained" in (caught.value.hint or "")


def test_a_class_that_finds_no_weights_is_refused(tmp_path: Path) -> None:
    config, _ = stored("BertModel", tmp_path)
    with pytest.raises(
        CheckpointError,
        match=r"^base: BertModel of transformers finds none of its weights: .* \('tok\.bias'",
    ):
        notes_on(config, {"tok.weight": (60, 32), "tok.bias": (60,)})


def unknown_class(config: dict[str, Any]) -> None:
    config |= {"architectures": ["OurModel"], "auto_map": {"AutoModel": "modeling.OurModel"}, "model_type": "ours"}


def unknown_type(config: dict[str, Any]) -> None:
    del config["architectures"]
    config["model_type"] = "ours"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (unknown_class, "has no class 'OurModel'"),
        (unknown_type, "has no class for the model_type 'ours'"),
        (dict.clear, "config.json names no class and no model_type"),
    ],
)
def test_an_unknown_class_is_not_checked(change: Callable[[dict[str, Any]], None], reason: str, tmp_path: Path) -> None:
    config, shapes = stored("BertModel", tmp_path)
    change(config)
    (line,) = notes_on(config, shapes)
    assert line.startswith("loading of the merged model is not checked: ")
    assert line.endswith(reason)


def test_a_config_without_a_class_means_the_bare_model(tmp_path: Path) -> None:
    config, shapes = stored("BertModel", tmp_path)
    del config["architectures"]
    assert notes_on(config, shapes) == ()


@pytest.mark.parametrize(("key", "value"), [("hidden_size", 33), ("hidden_act", "no such"), ("hidden_size", "x")])
def test_a_config_that_cannot_be_built_is_refused_in_one_sentence(key: str, value: Any, tmp_path: Path) -> None:
    config, shapes = stored("BertModel", tmp_path, **{key: value})
    with pytest.raises(CheckpointError, match=r"^base/config\.json: BertModel of transformers cannot ") as caught:
        notes_on(config, shapes)
    assert "\n" not in caught.value.message
    assert ". " not in caught.value.message.partition(": ")[2].partition("from it: ")[2]
