"""Tiny random models of transformers."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
    "projection_dim": 16,
}
TEXT = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 50,
    "max_position_embeddings": 8,
    "projection_dim": 16,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
LANGUAGE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 60,
    "max_position_embeddings": 16,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "CLIPModel": {"vision_config": VISION, "text_config": TEXT, "projection_dim": 16},
    "CLIPVisionModel": VISION,
    "CLIPVisionModelWithProjection": VISION,
    "ViTForImageClassification": {**VISION, "num_labels": 3},
    "BertForSequenceClassification": {**LANGUAGE, "num_labels": 3},
    "BertForMaskedLM": LANGUAGE,
    "BertModel": LANGUAGE,
    "GPT2LMHeadModel": {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 60, "n_positions": 16},
    "T5ForConditionalGeneration": {
        "d_model": 32,
        "d_kv": 16,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 2,
        "vocab_size": 60,
        "tie_word_embeddings": True,
    },
    "LlamaForCausalLM": {**LANGUAGE, "tie_word_embeddings": False},
    "MixtralForCausalLM": {**LANGUAGE, "num_local_experts": 2, "tie_word_embeddings": False},
}


@cache
def model(name: str) -> torch.nn.Module:
    """Return a model of this class with random weights. All tests share it and must not change it."""
    import transformers

    model_class = getattr(transformers, name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: torch.nn.Module = model_class(model_class.config_class(**CONFIGS[name])).eval()
    return made


def save(name: str, folder: Path, **options: Any) -> Path:
    made: Any = model(name)
    made.save_pretrained(folder, **options)
    return folder
