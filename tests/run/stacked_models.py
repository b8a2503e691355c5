"""Models whose layers are stacked, by class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import transformers

TEXT = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2}
TEXT |= {"num_hidden_layers": 4, "max_position_embeddings": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
HEADS = {**TEXT, "head_dim": 4}
EXPERTS = {"moe_intermediate_size": 8, "num_experts": 2, "num_experts_per_tok": 1}
LINEAR = {"linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 4, "linear_value_head_dim": 4}
LATENT = {"q_lora_rank": 4, "kv_lora_rank": 4, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4}
TOWER = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 4, "num_attention_heads": 2}
TOWER |= {"image_size": 8, "patch_size": 4}
SIDES = {"d_model": 8, "encoder_layers": 4, "decoder_layers": 4, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
SIDES |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 16, "max_position_embeddings": 16}
IMAGES = {"image_token_index": 5, "boi_token_index": 6, "eoi_token_index": 7, "mm_tokens_per_image": 4}
PLAIN = (("a", 0, 3), ("b", 1, 4))
"""Layers 0 to 2 of one model, then layers 1 to 3 of the other."""


class Case(NamedTuple):
    """A class, its config, the prefixes of its layers, the ranges, and what the config of the result has."""

    name: str
    config: dict[str, Any]
    stacks: tuple[str, ...] = ("model.layers.",)
    ranges: tuple[tuple[str, int, int], ...] = PLAIN
    expected: Mapping[str, Any] = MappingProxyType({})
    extra: str = ""
    config_class: str = ""


SLIDING, FULL, RECURRENT = "sliding_attention", "full_attention", "linear_attention"
CASES = {
    "gpt2": Case(
        "GPT2LMHeadModel",
        {"n_layer": 4, "n_embd": 8, "n_head": 2, "vocab_size": 16, "n_positions": 16, "eos_token_id": 2},
        ("transformer.h.",),
        expected={"n_layer": 6},
    ),
    "qwen2 with windows": Case(
        "Qwen2ForCausalLM",
        {**TEXT, "use_sliding_window": True, "max_window_layers": 2},
        ranges=(("a", 2, 4), ("b", 0, 2), ("a", 3, 4)),
        expected={"num_hidden_layers": 5, "layer_types": [SLIDING, SLIDING, FULL, FULL, SLIDING]},
    ),
    "gemma 3 with a vision tower": Case(
        "Gemma3ForConditionalGeneration",
        {
            "text_config": {**HEADS, "model_type": "gemma3_text", "sliding_window_pattern": 2},
            "vision_config": {**TOWER, "model_type": "siglip_vision_model"},
            **IMAGES,
        },
        ("language_model.model.layers.",),
        (("a", 0, 3), ("b", 0, 2)),
        {"text_config": {"num_hidden_layers": 5, "layer_types": [SLIDING, FULL, SLIDING, SLIDING, FULL]}},
    ),
    "deepseek": Case(
        "DeepseekV3ForCausalLM",
        {
            **TEXT,
            **LATENT,
            "first_k_dense_replace": 2,
            "n_routed_experts": 2,
            "num_experts_per_tok": 1,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 8,
            "n_shared_experts": 1,
        },
        ranges=(("a", 1, 3), ("b", 2, 4)),
        expected={"num_hidden_layers": 4, "first_k_dense_replace": 1},
    ),
    "qwen3-next": Case(
        "Qwen3NextForCausalLM",
        {**HEADS, **EXPERTS, **LINEAR, "full_attention_interval": 2, "shared_expert_intermediate_size": 8},
        ranges=(("a", 0, 3), ("b", 0, 2)),
        expected={"layer_types": [RECURRENT, FULL, RECURRENT, RECURRENT, FULL]},
    ),
    "t5": Case(
        "T5ForConditionalGeneration",
        {"num_layers": 4, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_heads": 2, "vocab_size": 16}
        | {"decoder_start_token_id": 0},
        ("encoder.block.", "decoder.block."),
        (("a", 1, 3), ("b", 0, 1)),
        {"num_layers": 3, "num_decoder_layers": 3},
    ),
    "clip vision tower": Case("CLIPVisionModel", TOWER, ("encoder.layers.",), expected={"num_hidden_layers": 6}),
    "qwen3, tied": Case("Qwen3ForCausalLM", {**HEADS, "tie_word_embeddings": True}),
    "mistral": Case("MistralForCausalLM", TEXT),
    "gpt-neo": Case(
        "GPTNeoForCausalLM",
        {"num_layers": 4, "hidden_size": 8, "num_heads": 2, "vocab_size": 16, "max_position_embeddings": 16}
        | {"attention_types": [[["global", "local"], 2]], "eos_token_id": 2},
        ("transformer.h.",),
        (("a", 0, 1), ("b", 2, 4)),
        {"num_layers": 3, "attention_layers": ["global", "global", "local"]},
    ),
    "gemma 2": Case("Gemma2ForCausalLM", HEADS, ranges=(("a", 1, 3),), expected={"layer_types": [FULL, SLIDING]}),
    "mixtral": Case("MixtralForCausalLM", {**TEXT, "num_local_experts": 2, "num_experts_per_tok": 1}),
    "qwen3-moe": Case(
        "Qwen3MoeForCausalLM",
        {**HEADS, **EXPERTS, "mlp_only_layers": [0]},
        ranges=(("a", 1, 4), ("b", 0, 3)),
        expected={"mlp_only_layers": [3]},
    ),
    "lfm2": Case(
        "Lfm2ForCausalLM",
        {**TEXT, "layer_types": ["conv", "conv", FULL, "conv"]},
        ranges=(("a", 2, 4), ("b", 0, 3)),
        expected={"layer_types": [FULL, "conv", "conv", "conv", FULL]},
    ),
    "llama 4": Case(
        "Llama4ForCausalLM",
        {**HEADS, "intermediate_size_mlp": 8, "num_local_experts": 2, "interleave_moe_layer_step": 2},
        expected={"moe_layers": [1, 3, 5], "no_rope_layers": [1, 1, 1, 1, 1, 0]},
        config_class="Llama4TextConfig",
    ),
    "jamba": Case(
        "JambaForCausalLM",
        {
            **TEXT,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "use_mamba_kernels": False,
            "mamba_d_state": 4,
            "mamba_dt_rank": 2,
        },
    ),
    "bart": Case(
        "BartForConditionalGeneration",
        SIDES,
        ("model.encoder.layers.", "model.decoder.layers."),
        expected={"encoder_layers": 6, "decoder_layers": 6},
    ),
    "llava": Case(
        "LlavaForConditionalGeneration",
        {
            "text_config": {**TEXT, "model_type": "llama"},
            "vision_config": {**TOWER, "model_type": "clip_vision_model"},
            "image_token_index": 5,
        },
        ("language_model.model.layers.",),
        expected={"text_config": {"num_hidden_layers": 6}},
    ),
    "the vision tower of clip": Case(
        "CLIPModel",
        {"text_config": {**TEXT, "max_position_embeddings": 8}, "vision_config": TOWER, "projection_dim": 8},
        ("vision_model.encoder.layers.",),
        expected={"vision_config": {"num_hidden_layers": 6}},
        extra="stack: vision_model\n",
    ),
    "mamba": Case(
        "MambaForCausalLM",
        {"num_hidden_layers": 4, "hidden_size": 8, "state_size": 4, "vocab_size": 16},
        ("backbone.layers.",),
    ),
}


def made(case: Case, home: Path) -> Any:
    """Write the models a and b of a class, and return the class."""
    model_class = getattr(transformers, case.name)
    config_class = getattr(transformers, case.config_class) if case.config_class else model_class.config_class
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        model_class(config_class(**case.config)).save_pretrained(home / name)
    return model_class


def recipe_of(case: Case, home: Path) -> Path:
    slices = [f"  - sources: [{{model: {home}/{one}, layer_range: [{a}, {b}]}}]\n" for one, a, b in case.ranges]
    recipe = home / "recipe.yaml"
    recipe.write_text(f"merge_method: passthrough\n{case.extra}slices:\n{''.join(slices)}", encoding="utf-8")
    return recipe
