"""Configs of tiny models of other libraries, and the shapes of their tensors."""

from __future__ import annotations

from typing import Any

UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 8,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}


SD3 = {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 8,
    "caption_projection_dim": 16,
    "pooled_projection_dim": 8,
    "pos_embed_max_size": 8,
}


VAE = {"block_out_channels": (8,), "norm_num_groups": 4, "layers_per_block": 1}


DIFFUSERS: dict[str, dict[str, Any]] = {
    "UNet2DConditionModel": UNET,
    "SD3Transformer2DModel": SD3,
    "AutoencoderKL": VAE,
}


TIMM_CONFIG = {
    "architecture": "vit_tiny_patch16_224",
    "num_classes": 3,
    "num_features": 16,
    "global_pool": "token",
    "label_names": ["rose", "tulip", "daisy"],
    "model_args": {"img_size": [32, 32], "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 3},
    "pretrained_cfg": {"num_classes": 3, "classifier": "head", "first_conv": "patch_embed.proj"},
}


TIMM_SHAPES = {
    "cls_token": (1, 1, 16),
    "pos_embed": (1, 5, 16),
    "patch_embed.proj.weight": (16, 3, 16, 16),
    "patch_embed.proj.bias": (16,),
    "blocks.0.norm1.weight": (16,),
    "blocks.0.norm1.bias": (16,),
    "blocks.0.attn.qkv.weight": (48, 16),
    "blocks.0.attn.qkv.bias": (48,),
    "blocks.0.attn.proj.weight": (16, 16),
    "blocks.0.attn.proj.bias": (16,),
    "blocks.0.norm2.weight": (16,),
    "blocks.0.norm2.bias": (16,),
    "blocks.0.mlp.fc1.weight": (64, 16),
    "blocks.0.mlp.fc1.bias": (64,),
    "blocks.0.mlp.fc2.weight": (16, 64),
    "blocks.0.mlp.fc2.bias": (16,),
    "norm.weight": (16,),
    "norm.bias": (16,),
    "head.weight": (3, 16),
    "head.bias": (3,),
}


OPEN_CLIP_CONFIG = {
    "model_cfg": {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}


_BLOCK = {
    "ln_1.weight": (16,),
    "ln_1.bias": (16,),
    "attn.in_proj_weight": (48, 16),
    "attn.in_proj_bias": (48,),
    "attn.out_proj.weight": (16, 16),
    "attn.out_proj.bias": (16,),
    "ln_2.weight": (16,),
    "ln_2.bias": (16,),
    "mlp.c_fc.weight": (64, 16),
    "mlp.c_fc.bias": (64,),
    "mlp.c_proj.weight": (16, 64),
    "mlp.c_proj.bias": (16,),
}


OPEN_CLIP_SHAPES: dict[str, tuple[int, ...]] = {
    "positional_embedding": (8, 16),
    "text_projection": (16, 8),
    "logit_scale": (),
    "visual.class_embedding": (16,),
    "visual.positional_embedding": (5, 16),
    "visual.proj": (16, 8),
    "visual.conv1.weight": (16, 3, 8, 8),
    **{f"visual.ln_{place}.{kind}": (16,) for place in ("pre", "post") for kind in ("weight", "bias")},
    **{f"{tower}transformer.resblocks.0.{name}": shape for tower in ("visual.", "") for name, shape in _BLOCK.items()},
    "token_embedding.weight": (20, 16),
    "ln_final.weight": (16,),
    "ln_final.bias": (16,),
}


MISTRAL_PARAMS = {"dim": 16, "n_layers": 1, "head_dim": 8, "hidden_dim": 24, "n_heads": 2, "n_kv_heads": 2}


MISTRAL_SHAPES = {
    "tok_embeddings.weight": (20, 16),
    "layers.0.attention_norm.weight": (16,),
    **{f"layers.0.attention.w{name}.weight": (16, 16) for name in "qkvo"},
    "layers.0.ffn_norm.weight": (16,),
    "layers.0.feed_forward.w1.weight": (24, 16),
    "layers.0.feed_forward.w2.weight": (16, 24),
    "layers.0.feed_forward.w3.weight": (24, 16),
    "norm.weight": (16,),
    "output.weight": (20, 16),
}
