"""Tiny models that hold other models: VLMs, audio-language models, encoder-decoder pairs; and the models inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

TEXT: dict[str, Any] = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
TEXT |= {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32}
ENCODER: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
ENCODER |= {"num_attention_heads": 2}
VISION = {**ENCODER, "image_size": 8, "patch_size": 4}
ROTARY = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
TOKENS = {"image_token_id": 30, "video_token_id": 29, "vision_start_token_id": 28, "vision_end_token_id": 27}
QWEN_VISION = {"depth": 2, "hidden_size": 16, "out_hidden_size": 16, "intermediate_size": 16, "num_heads": 2}
QWEN_VISION |= {"patch_size": 4, "spatial_merge_size": 2}
AUDIO = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "num_mel_bins": 8}
OPT: dict[str, Any] = {"vocab_size": 32, "hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 2}
OPT |= {"num_attention_heads": 2, "max_position_embeddings": 32, "word_embed_proj_dim": 16}

COMPOSITES: dict[str, tuple[str, dict[str, Any], str, str, dict[str, Any]]] = {
    # class, config, path of the language model, class and config of a text model that fits into it
    "Qwen3-VL": (
        "Qwen3VLForConditionalGeneration",
        {
            "text_config": {**TEXT, "head_dim": 8, "rope_parameters": ROTARY},
            "vision_config": {**QWEN_VISION, "deepstack_visual_indexes": [0], "num_position_embeddings": 16},
            **TOKENS,
        },
        "model.language_model",
        "Qwen3ForCausalLM",
        {**TEXT, "head_dim": 8},
    ),
    "Qwen2.5-VL": (
        "Qwen2_5_VLForConditionalGeneration",
        {
            "text_config": {**TEXT, "rope_parameters": ROTARY},
            "vision_config": {**QWEN_VISION, "fullatt_block_indexes": [1], "window_size": 16},
            **TOKENS,
        },
        "model.language_model",
        "Qwen2ForCausalLM",
        TEXT,
    ),
    "LLaVA": (
        "LlavaForConditionalGeneration",
        {
            "text_config": {**TEXT, "model_type": "llama"},
            "vision_config": {**VISION, "model_type": "clip_vision_model", "projection_dim": 8},
            "image_token_index": 30,
        },
        "model.language_model",
        "LlamaForCausalLM",
        TEXT,
    ),
    "Gemma 3": (
        "Gemma3ForConditionalGeneration",
        {
            "text_config": {**TEXT, "head_dim": 8},
            "vision_config": {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False},
            "mm_tokens_per_image": 4,
            "image_token_index": 30,
        },
        "model.language_model",
        "Gemma3ForCausalLM",
        {**TEXT, "head_dim": 8},
    ),
    "Idefics 3": (
        "Idefics3ForConditionalGeneration",
        {
            "text_config": {**TEXT, "model_type": "llama", "pad_token_id": 0},
            "vision_config": VISION,
            "scale_factor": 1,
            "image_token_id": 30,
        },
        "model.text_model",
        "LlamaForCausalLM",
        {**TEXT, "pad_token_id": 0},
    ),
    "BLIP-2": (
        "Blip2ForConditionalGeneration",
        {
            "text_config": {**OPT, "model_type": "opt"},
            "vision_config": VISION,
            "qformer_config": {
                **ENCODER,
                "vocab_size": 32,
                "encoder_hidden_size": 16,
            },
            "num_query_tokens": 2,
        },
        "language_model",
        "OPTForCausalLM",
        OPT,
    ),
    "Qwen2-Audio": (
        "Qwen2AudioForConditionalGeneration",
        {"text_config": {**TEXT, "model_type": "qwen2"}, "audio_config": {**AUDIO, "max_source_positions": 8}},
        "model.language_model",
        "Qwen2ForCausalLM",
        TEXT,
    ),
    "Voxtral": (
        "VoxtralForConditionalGeneration",
        {
            "text_config": {**TEXT, "model_type": "llama", "head_dim": 8},
            "audio_config": {
                **ENCODER,
                "num_mel_bins": 8,
                "max_source_positions": 8,
            },
        },
        "model.language_model",
        "LlamaForCausalLM",
        {**TEXT, "head_dim": 8},
    ),
}


def composite(name: str, seed: int = 0) -> Any:
    """Return a model that holds others, with random weights."""
    import transformers

    kind, config = COMPOSITES[name][:2]
    model_class = getattr(transformers, kind)
    return _random(lambda: model_class(model_class.config_class(**config)), seed)


def text_model(name: str, seed: int) -> Any:
    """Return a text model of the shapes of the language model inside of the composite."""
    import transformers

    kind, config = COMPOSITES[name][3:]
    model_class = getattr(transformers, kind)
    return _random(lambda: model_class(model_class.config_class(**config)), seed)


def _random(make: Callable[[], Any], seed: int) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval()
