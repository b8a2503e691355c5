"""The config.json of a merged model: settings, dtypes and code that the weights do not bear out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hubmerge.checkpoints import (
    Checkpoint,
    Origin,
    PublishedConfig,
    align,
    make_plan,
    open_checkpoint,
    published_config,
)
from hubmerge.checkpoints.checkpoint import HeaderOnly
from hubmerge.checkpoints.matching.selection import ALL_TENSORS, Selection
from hubmerge.checkpoints.planning.matrices import MatrixRule
from hubmerge.run.model_folder import write_config
from tests.checkpoints.files import random_tensors, write_folder

RULE = MatrixRule(frozenset({"q.weight"}), "By hand.", {})
PLAIN = {name: tensor.float() for name, tensor in random_tensors({"q.weight": (4, 4), "norm.weight": (4,)}).items()}
FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
CODE = {"AutoModel": "modeling_own.OwnModel", "AutoTokenizer": ["tokenization_own.OwnTokenizer", None]}


def published(
    folder: Path,
    config: dict[str, Any],
    tensors: dict[str, torch.Tensor] = PLAIN,
    *,
    out_dtype: torch.dtype | None = None,
    selection: Selection = ALL_TENSORS,
    origin: Origin | None = None,
) -> PublishedConfig:
    base = open_checkpoint(write_folder(folder / "base", tensors, config), origin or "base")
    plan = make_plan(base, [align(base, base, selection=selection)], RULE, selection=selection, out_dtype=out_dtype)
    return published_config(base, plan.tensors, out_dtype)


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"quantization_config": FP8}, "quantization_config"),
        ({"quantization_config": None}, "quantization_config"),
        ({"compression_config": {"format": "pack-quantized"}}, "compression_config"),
        ({"text_config": {"quantization_config": FP8, "hidden_size": 4}}, "text_config.quantization_config"),
        ({"a": {"b": {"quantization_config": FP8}}}, "a.b.quantization_config"),
        ({"quantization": {"bits": 4, "group_size": 64}}, "quantization"),
    ],
)
def test_settings_of_quantized_formats_over_plain_weights_are_left_out(
    tmp_path: Path, config: dict[str, Any], place: str
) -> None:
    found = published(tmp_path, {"hidden_size": 4, **config})
    assert "quant" not in json.dumps(found.content)
    assert "compression" not in json.dumps(found.content)
    assert found.content["hidden_size"] == 4
    assert found.content.get("text_config", {"hidden_size": 4}) == {"hidden_size": 4}
    (note,) = found.notes
    assert note == f"base/config.json has {place}, but all weights are plain numbers: left out of the merged model"
    assert not found.quantized


def test_settings_of_kept_quantized_weights_stay(tmp_path: Path) -> None:
    codes = {"k.weight": torch.ones(4, 4).to(torch.float8_e4m3fn), "k.weight_scale": torch.ones(1)}
    config = {"quantization_config": FP8}
    found = published(tmp_path, config, {**PLAIN, **codes}, selection=Selection(exclude=("k.*",)))
    assert found == PublishedConfig(config, quantized=True, notes=())


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_a_dtype_that_no_weight_has_is_that_of_the_weights(tmp_path: Path, key: str) -> None:
    config = {key: "float16", "text_config": {key: "float16"}, "vision_config": {"patch_size": 4}}
    found = published(tmp_path, config)
    assert found.content == {key: "float32", "text_config": {key: "float32"}, "vision_config": {"patch_size": 4}}
    assert found.notes == ("base/config.json sets the dtype float16, but the weights are float32: written as float32",)


@pytest.mark.parametrize("stated", ["torch.float16", "auto", "float8_e4m3fn", "int8"])
def test_a_dtype_that_is_none_of_a_model_is_replaced(tmp_path: Path, stated: str) -> None:
    other = {"processor": {"dtype": "image"}}
    assert published(tmp_path, {"torch_dtype": stated, **other}).content == {"torch_dtype": "float32", **other}


@pytest.mark.parametrize("odd", [["float32"], {"float32": 1}, 7])
def test_a_dtype_of_an_odd_type_in_a_nested_config_is_kept(tmp_path: Path, odd: object) -> None:
    nested = {"dtype": odd, "torch_dtype": odd}
    assert published(tmp_path, {"dtype": "float16", "other": nested}).content["other"] == nested


@pytest.mark.parametrize("config", [{}, {"dtype": "bfloat16"}, {"torch_dtype": "float32"}, {"dtype": None}])
def test_a_dtype_that_some_weights_have_stays(tmp_path: Path, config: dict[str, Any]) -> None:
    tensors = {**PLAIN, "norm.weight": PLAIN["norm.weight"].bfloat16()}
    assert published(tmp_path, config, tensors) == PublishedConfig(config, quantized=False, notes=())


def test_the_written_dtype_is_that_of_all_nested_configs(tmp_path: Path) -> None:
    config = {
        "torch_dtype": "float32",
        "text_config": {"hidden_size": 4},
        "vision_config": {"torch_dtype": "float32", "deeper": {"model_type": "x"}},
        "rope_parameters": {"rope_theta": 1e4},
        "processor": {"dtype": "image"},
        "id2label": {"0": "cat"},
    }
    found = published(tmp_path, config, out_dtype=torch.bfloat16)
    assert found.content == {
        "dtype": "bfloat16",
        "text_config": {"hidden_size": 4, "dtype": "bfloat16"},
        "vision_config": {"dtype": "bfloat16", "deeper": {"model_type": "x", "dtype": "bfloat16"}},
        "rope_parameters": {"rope_theta": 1e4},
        "processor": {"dtype": "image"},
        "id2label": {"0": "cat"},
    }
    assert found.notes == ()


def test_code_in_a_repo_is_named_with_the_repo(tmp_path: Path) -> None:
    origin = Origin("owner/base@abc", repo="owner/base", commit="abc")
    found = published(tmp_path, {"auto_map": {**CODE, "AutoConfig": "owner/other--config.Own"}}, origin=origin)
    assert found.content["auto_map"] == {
        "AutoModel": "owner/base--modeling_own.OwnModel",
        "AutoTokenizer": ["owner/base--tokenization_own.OwnTokenizer", None],
        "AutoConfig": "owner/other--config.Own",
    }
    (note,) = found.notes
    assert "names code that is not copied (modeling_own.py, tokenization_own.py)" in note


def test_code_in_a_folder_is_left_out_where_transformers_has_the_class(tmp_path: Path) -> None:
    known = published(tmp_path / "known", {"auto_map": CODE, "architectures": ["BertModel"]})
    assert known.content == {"architectures": ["BertModel"]}
    own = published(tmp_path / "own", {"auto_map": CODE, "architectures": ["OwnModel"]})
    assert own.content["auto_map"] == CODE
    (note,) = own.notes
    assert note.endswith("copy modeling_own.py, tokenization_own.py of base to load the merged model")


def test_a_config_is_written_as_it_was_read(tmp_path: Path) -> None:
    """Also floats that JSON does not have, in both spellings, numbers as keys, nested and unusual values."""
    text = (
        '{"a": {"__float__": "Infinity"}, "b": [Infinity, -Infinity], "c": {"__float__": "NaN"}, "d": 1e-05, "e": 1e22,'
        ' "id2label": {"0": "cat", "10": "dög"}, "f": null, "g": {"h": {"i": [{"j": true}]}}, "k": "\\ud83d\\ude00"}'
    )
    base = open_checkpoint(write_folder(tmp_path / "base", PLAIN, {}), "base")
    config = json.loads(text)
    opened = Checkpoint(base.origin, base.tensors, config, {"model.safetensors": HeaderOnly(base.origin)})
    write_config(published_config(opened, (), None).content, tmp_path)
    assert repr(sorted(json.loads((tmp_path / "config.json").read_text()).items())) == repr(sorted(config.items()))


def test_labels_with_numbers_as_keys_keep_their_order_for_transformers(tmp_path: Path) -> None:
    import transformers

    config = transformers.BertConfig(id2label={number: f"name {number}" for number in range(12)})
    config.save_pretrained(tmp_path / "saved")
    content = json.loads((tmp_path / "saved" / "config.json").read_text())
    (tmp_path / "written").mkdir()
    write_config(published(tmp_path, content).content, tmp_path / "written")
    read = transformers.AutoConfig.from_pretrained(tmp_path / "written")
    original = transformers.AutoConfig.from_pretrained(tmp_path / "saved")
    assert {**read.to_dict(), "_name_or_path": ""} == {**original.to_dict(), "_name_or_path": ""}
    assert read.id2label == config.id2label
