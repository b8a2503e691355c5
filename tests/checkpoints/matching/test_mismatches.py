"""Tests of the errors for checkpoints that do not match: all mismatches in one message, one rule in the hint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from hubmerge.checkpoints import ALL_TENSORS, Checkpoint, Selection, align, open_checkpoint, open_headers
from hubmerge.checkpoints.matching.components import patterns_for
from hubmerge.checkpoints.origin import Origin
from hubmerge.errors import CheckpointError
from tests.checkpoints.files import random_tensors, selection_in, with_prefix, without, write_folder

Open = Callable[..., Checkpoint]


def language(layers: int = 2, *, vocabulary: int = 9, width: int = 4) -> dict[str, torch.Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, width),
        "model.norm.weight": (width,),
    }
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{part}.weight": (width, width) for part in ("q_proj", "k_proj", "o_proj")}
    return random_tensors({**shapes, "lm_head.weight": (vocabulary, width)})


LANGUAGE = language()


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    def open_one(name: str, tensors: Mapping[str, torch.Tensor], config: dict[str, Any] | None = None) -> Checkpoint:
        return open_checkpoint(write_folder(tmp_path / name, tensors, config), name)

    return open_one


def refused(base: Checkpoint, checkpoint: Checkpoint, selection: Selection = ALL_TENSORS) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        align(base, checkpoint, selection=selection)
    return caught.value


def test_all_tensors_of_another_shape_are_in_one_rule(opened: Open) -> None:
    base, checkpoint = opened("base", LANGUAGE), opened("tuned", language(vocabulary=11))
    error = refused(base, checkpoint)
    assert error.message == (
        "tuned: tensor 'model.embed_tokens.weight' is 11 x 4, expected 9 x 4 as 'model.embed_tokens.weight' of the "
        "base model base; also mismatched: 'lm_head.weight'"
    )
    rule = selection_in(error)
    assert rule == Selection(exclude=("model.embed_tokens.weight", "lm_head.*"))
    assert len(align(base, checkpoint, selection=rule).tensors) == 7


def test_all_missing_tensors_are_in_one_rule(opened: Open) -> None:
    missing = [f"model.layers.{layer}.{part}.weight" for layer in range(6) for part in ("q_proj", "k_proj")]
    base, checkpoint = opened("base", language(6)), opened("part", without(language(6), missing))
    error = refused(base, checkpoint)
    assert error.message == (
        "part: tensors 'model.layers.0.q_proj.weight' and 11 more are missing, expected all tensors that the base "
        "model base has in the model's body"
    )
    rule = selection_in(error)
    assert rule == Selection(exclude=("model.layers.*.q_proj.weight", "model.layers.*.k_proj.weight"))
    assert not set(align(base, checkpoint, selection=rule).tensors) & set(missing)


def test_one_rule_excludes_all_mismatches_and_keeps_the_rule_of_the_recipe(
    opened: Open,
) -> None:
    tensors = {
        **without(language(4), ["model.layers.1.q_proj.weight", "model.norm.weight"]),
        "lm_head.weight": torch.ones(8, 4),
        "value_head.weight": torch.ones(4, 1),
        "value_head.bias": torch.ones(1),
        "model.extra.weight": torch.ones(4),
    }
    base, checkpoint = opened("base", language(4)), opened("odd", tensors)
    error = refused(base, checkpoint, Selection(include=("model.*", "lm_head.*", "value*"), exclude=("*.norm.*",)))
    assert error.message.count(";") == 2
    rule = selection_in(error)
    assert rule.include == ("model.*", "lm_head.*", "value*")
    assert rule.exclude == (
        "*.norm.*",
        "lm_head.*",
        "value_head.*",
        "model.extra.weight",
        "model.layers.1.q_proj.weight",
    )
    assert len(align(base, checkpoint, selection=rule).tensors) == 12


def test_an_unexpected_module_of_a_checkpoint_with_a_prefix(opened: Open) -> None:
    tensors = with_prefix("module.", {**LANGUAGE, "score.weight": torch.ones(2, 4)})
    base, checkpoint = opened("base", LANGUAGE), opened("wrapped", tensors)
    rule = selection_in(refused(base, checkpoint))
    assert set(align(base, checkpoint, selection=rule).tensors) == set(LANGUAGE)


@pytest.mark.parametrize("width", [4, 8])
def test_another_architecture_has_no_rule_in_the_hint(opened: Open, width: int) -> None:
    tensors = random_tensors(
        {
            "bert.embeddings.word_embeddings.weight": (9, width),
            "bert.encoder.layer.0.attention.self.query.weight": (width, width),
            "bert.encoder.layer.0.attention.self.key.weight": (width, width),
            "cls.predictions.bias": (9,),
        }
    )
    other = opened("other", tensors if width == 4 else language(width=8), {"model_type": "bert"})
    error = refused(opened("base", LANGUAGE, {"model_type": "llama"}), other)
    assert "other: most of its tensors do not match the base model base (bert, expected llama): tensor" in error.message
    assert "set base_model to the model" in (error.hint or "")
    assert "exclude" not in (error.hint or "")


@pytest.mark.parametrize(("base_layers", "layers"), [(1, 2), (2, 1), (8, 6), (6, 8)])
def test_another_depth_has_no_rule_in_the_hint(opened: Open, base_layers: int, layers: int) -> None:
    error = refused(opened("base", language(base_layers)), opened("other", language(layers)))
    assert "other: its layers are not those of the base model base: tensors 'model.layers." in error.message
    assert "exclude" not in (error.hint or "")


def with_codes(parts: Mapping[str, torch.dtype]) -> dict[str, torch.Tensor]:
    """Return the language model with each projection's weight replaced by `parts`."""
    others = {name: tensor for name, tensor in LANGUAGE.items() if "_proj" not in name}
    modules = [name.removesuffix(".weight") for name in LANGUAGE if "_proj" in name]
    return {
        **others,
        **{f"{module}.{part}": torch.ones(4, 4).to(dtype) for module in modules for part, dtype in parts.items()},
    }


GPTQ = {"qweight": torch.int32, "qzeros": torch.int32, "scales": torch.float16, "g_idx": torch.int32}


@pytest.mark.parametrize(
    ("parts", "config", "excluded", "message"),
    [
        (
            {"weight": torch.float8_e4m3fn, "weight_scale": torch.float32},
            None,
            (),
            "weight_scale' belongs to a quantized format",
        ),
        ({"weight": torch.float8_e4m3fn, "weight_scale_inv": torch.float32}, None, (), "weight_scale_inv' belongs"),
        (GPTQ, {"quantization_config": {"quant_method": "gptq"}}, (), "belongs to a quantized format (gptq)"),
        (
            GPTQ,
            {"quantization_config": {"quant_method": "gptq"}},
            ("*scale*", "*_idx"),
            "belongs to a quantized format (gptq)",
        ),
        (
            {"codes": torch.float16},
            {"quantization_config": {"quant_method": "x"}},
            (),
            "its config.json sets a quantized format (x)",
        ),
    ],
)
def test_a_quantized_format_is_named(
    opened: Open,
    parts: dict[str, torch.dtype],
    config: dict[str, Any] | None,
    excluded: tuple[str, ...],
    message: str,
) -> None:
    checkpoint = opened("quantized", with_codes(parts), config)
    error = refused(opened("base", LANGUAGE), checkpoint, Selection(exclude=excluded))
    assert error.message.startswith("quantized: ")
    assert message in error.message
    assert error.hint == "merge an unquantized version of this model"


def test_an_empty_quantization_config_is_no_quantized_format(opened: Open) -> None:
    checkpoint = opened("codes", with_codes({"codes": torch.int16}), {"quantization_config": {}})
    error = refused(opened("base", LANGUAGE), checkpoint)
    assert "quantized" not in error.message
    assert "q_proj.weight' and 5 more are missing" in error.message


def test_settings_of_a_quantized_format_over_plain_weights_are_no_cause(opened: Open) -> None:
    checkpoint = opened("tuned", language(vocabulary=11), {"quantization_config": {"quant_method": "gptq"}})
    error = refused(opened("base", LANGUAGE), checkpoint)
    assert "quantized" not in error.message
    assert "'model.embed_tokens.weight' is 11 x 4, expected 9 x 4" in error.message


def test_a_quantized_base_model_is_refused(opened: Open) -> None:
    scales = {f"model.layers.{layer}.q_proj.weight_scale": torch.ones(1) for layer in range(2)}
    error = refused(opened("base", {**LANGUAGE, **scales}), opened("tuned", LANGUAGE))
    assert error.message.startswith("base: tensor 'model.layers.0.q_proj.weight_scale' belongs to a quantized format")


def test_the_error_has_the_repo_and_the_tensor_as_fields(opened: Open, tmp_path: Path) -> None:
    opened("tuned", language(vocabulary=11))
    content = (tmp_path / "tuned" / "model.safetensors").read_bytes()
    header = content[: 8 + int.from_bytes(content[:8], "little")]
    origin = Origin("owner/tuned@abc", repo="owner/tuned", commit="abc")
    error = refused(opened("base", LANGUAGE), open_headers({"model.safetensors": header}, {}, origin))
    assert error.message.startswith("owner/tuned@abc: tensor 'model.embed_tokens.weight' is 11 x 4, expected 9 x 4")
    context = error.context
    assert (context.repo, context.commit, context.tensor) == ("owner/tuned", "abc", "model.embed_tokens.weight")


def test_patterns_match_no_spared_name() -> None:
    names = ["head.weight", "head.bias", "layers.0.q.weight", "layers.1.q.weight", "layers.10.q.bias", "scale"]
    spared = ["layers.2.q.bias", "layers.2.k.weight"]
    assert patterns_for(names, spared) == ["head.*", "layers.*.q.weight", "layers.10.q.bias", "scale"]
    assert patterns_for(["a.weight"], []) == ["a.*"]
    assert patterns_for([], ["a"]) == []
