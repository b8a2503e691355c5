"""Tiny models with buffers."""

from __future__ import annotations

import torch
import transformers
from transformers import PreTrainedModel


def batch_norm(seed: int = 0) -> PreTrainedModel:
    """Return a convolutional model with batch normalization."""
    torch.manual_seed(seed)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label={0: "cat", 1: "dog"}
    )
    model = transformers.ResNetForImageClassification(config)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.copy_(torch.rand_like(buffer) + 0.5)
        elif name.endswith("running_mean"):
            buffer.normal_()
    return model


def deepseek() -> PreTrainedModel:
    """Return a mixture of experts whose router has a bias that is not trained."""
    config = transformers.DeepseekV3Config(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=8,
        moe_intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        n_routed_experts=4,
        n_group=2,
        topk_group=1,
        num_experts_per_tok=2,
        first_k_dense_replace=0,
        q_lora_rank=4,
        kv_lora_rank=4,
        qk_nope_head_dim=4,
        qk_rope_head_dim=4,
        v_head_dim=4,
    )
    return transformers.DeepseekV3ForCausalLM(config)


def swinv2() -> PreTrainedModel:
    """Return a model with tables of relative coordinates."""
    config = transformers.Swinv2Config(
        image_size=8, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=2, num_labels=2
    )
    return transformers.Swinv2Model(config)


def m2m100() -> PreTrainedModel:
    """Return a model with tables of sinusoidal positions."""
    config = transformers.M2M100Config(
        vocab_size=16,
        d_model=8,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=8,
        decoder_ffn_dim=8,
        max_position_embeddings=16,
    )
    return transformers.M2M100ForConditionalGeneration(config)


def falcon() -> PreTrainedModel:
    """Return a model with rotary positions."""
    config = transformers.FalconConfig(
        vocab_size=16,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        alibi=False,
        bos_token_id=1,
        eos_token_id=1,
    )
    return transformers.FalconForCausalLM(config)
