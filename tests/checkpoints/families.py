"""Tiny random models of many families, and checkpoints fine-tuned from them, saved as users save them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 20,
    "max_position_embeddings": 8,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
LANGUAGE = {**TEXT, "num_key_value_heads": 2, "max_position_embeddings": 16}
PROJECTED = {"projection_dim": 12}
CLASSES = {"id2label": {0: "cat", 1: "dog", 2: "owl"}, "label2id": {"cat": 0, "dog": 1, "owl": 2}}
EXPERTS = {**LANGUAGE, "head_dim": 8, "num_experts_per_tok": 1, "tie_word_embeddings": False}

FAMILIES: dict[str, dict[str, Any]] = {
    "CLIPModel": {
        "vision_config": {**VISION, **PROJECTED},
        "text_config": {**TEXT, **PROJECTED},
        "projection_dim": 12,
    },
    "CLIPVisionModel": {**VISION, **PROJECTED},
    "CLIPVisionModelWithProjection": {**VISION, **PROJECTED},
    "ViTForImageClassification": {**VISION, **CLASSES},
    "Dinov2ForImageClassification": {**VISION, **CLASSES},
    "SiglipModel": {"vision_config": VISION, "text_config": {**TEXT, "projection_size": 16}},
    "BertForSequenceClassification": {**LANGUAGE, **CLASSES},
    "RobertaForSequenceClassification": {**LANGUAGE, **CLASSES},
    "T5ForConditionalGeneration": {
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 24,
        "num_layers": 1,
        "num_heads": 2,
        "vocab_size": 20,
    },
    "GPT2LMHeadModel": {
        "n_embd": 16,
        "n_layer": 1,
        "n_head": 2,
        "vocab_size": 20,
        "n_positions": 8,
        "bos_token_id": 0,
        "eos_token_id": 1,
    },
    "LlamaForCausalLM": {**LANGUAGE, "tie_word_embeddings": False},
    "Qwen2ForCausalLM": {**LANGUAGE, "tie_word_embeddings": True},
    "Qwen3ForCausalLM": {**LANGUAGE, "head_dim": 8, "tie_word_embeddings": True},
    "MixtralForCausalLM": {**EXPERTS, "num_local_experts": 2},
    "Qwen3MoeForCausalLM": {**EXPERTS, "num_experts": 2, "moe_intermediate_size": 12},
    "GraniteMoeForCausalLM": {**EXPERTS, "num_local_experts": 2},
}


def make(family: str, seed: int = 0, **changes: Any) -> Any:
    """Return a new model of this class with random weights."""
    import transformers

    model_class = getattr(transformers, family)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return model_class(model_class.config_class(**{**FAMILIES[family], **changes})).eval()


@cache
def base(family: str) -> Any:
    """Return the base model of this class; all tests share the object and must not change it."""
    return make(family)


def tuned(family: str, seed: int, amount: float = 1e-2) -> Any:
    """Return a copy of the base model with small random changes of every parameter."""
    model = make(family)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += amount * torch.randn(parameter.shape, generator=generator)
    return model


def save(model: Any, folder: Path, **options: Any) -> Path:
    """Save a model with `save_pretrained`."""
    model.save_pretrained(folder, **options)
    return folder


def save_state_dict(model: Any, folder: Path) -> Path:
    """Save a model with `torch.save(model.state_dict())`: one pickle with the names that the model has in memory."""
    folder.mkdir(parents=True)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder
