"""Weight matrices by name and shape, for models whose class is not known."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from hubmerge.checkpoints.model_class.model_class import layers
from hubmerge.checkpoints.planning.name_rule import is_lookup_table, matrices_by_name
from tests.checkpoints.model_class.sweep import built, config_types

MATRICES = [
    "layers.0.mlp.shared_experts.up_proj.weight",
    "layers.0.mlp.shared_expert.down_proj.weight",
    "layers.0.mlp.shared_expert_gate.weight",
    "layers.0.shared_mlp.input_linear.weight",
    "layers.0.shared_head.head.weight",
    "layers.0.shared.q_proj.weight",
    "layers.0.mlp.shared.weight",
    "layers.0.sharedMlp.fc1.weight",
    "layers.0.mlp.experts.3.w1.weight",
    "layers.0.mlp.gate.weight",
    "layers.0.norm1.linear.weight",
    "layers.0.adaLN_modulation.1.weight",
    "layers.0.token_mixing.weight",
    "layers.0.mlp_tokens.fc1.weight",
    "layers.0.positional_projection.weight",
    "layers.0.linear_pos.weight",
    "layers.0.pair_bias.linear.weight",
    "layers.0.multihead.q.weight",
    "normalizer.linear.weight",
    "time_embed.0.weight",
    "time_embedding.linear_1.weight",
    "embeddings.projection.weight",
    "embeddings_project.weight",
    "encoder.embedding_hidden_mapping_in.weight",
    "patch_embed.weight",
    "embed_out.weight",
    "lm_head.weight",
    "attn.in_proj_weight",
    "remember.weight",
    "assembler.weight",
]
OTHERS = [
    "shared.weight",
    "encoder.shared.weight",
    "model.embed_tokens.weight",
    "model.embed_tokens.0.weight",
    "wte.weight",
    "transformer.wpe.weight",
    "tok_embeddings.weight",
    "word_embeddings.weight",
    "positionEmbedding.weight",
    "rel_pos_emb.weight",
    "patch_position_embeddings.weight",
    "mask_tokens.weight",
    "block.0.relative_attention_bias.weight",
    "attn.q_norm.weight",
    "layers.0.ln_1.weight",
    "layers.0.input_layernorm.weight",
    "free_table",
    "layers.0.proj.bias",
]


@pytest.mark.parametrize("name", MATRICES)
def test_linear_layers(name: str) -> None:
    assert matrices_by_name({name: (8, 6)}, {}) == {name}


@pytest.mark.parametrize("name", OTHERS)
def test_other_2d_tensors(name: str) -> None:
    assert matrices_by_name({name: (8, 6)}, {}) == set()


@pytest.mark.parametrize(
    ("name", "shape", "config", "expected"),
    [
        ("layers.0.experts.gate_up_proj", (4, 8, 6), {}, True),
        ("layers.0.experts.gate_up_proj", (64, 8, 6), {}, True),
        ("layers.0.shared_experts.down_proj", (1, 8, 6), {}, True),
        ("layers.0.moe.input_linear.weight", (4, 8, 6), {}, True),
        ("layers.0.moe.w1", (64, 8, 6), {}, False),
        ("layers.0.moe.w1", (64, 8, 6), {"num_local_experts": 64}, True),
        ("layers.0.moe.w1", (64, 8, 6), {"text_config": {"n_routed_experts": 64}}, True),
        ("layers.0.experts.gate_up_proj_bias", (4, 8, 6), {}, False),
        ("layers.0.experts.bias", (4, 8, 6), {}, False),
        ("layers.0.conv1d.weight", (4, 8, 6), {}, False),
        ("layers.0.mixer.weight", (16, 8, 3), {}, False),
        ("layers.0.pos_embed", (2, 8, 6), {}, False),
        ("queries", (1, 8, 6), {}, False),
        ("tables.relative_position", (4, 8, 6), {}, False),
    ],
)
def test_3d_tensors(name: str, shape: tuple[int, ...], config: dict[str, Any], *, expected: bool) -> None:
    assert (matrices_by_name({name: shape}, config) == {name}) is expected


def test_lookup_tables_without_the_word_weight() -> None:
    assert is_lookup_table("pos_embed")
    assert is_lookup_table("vision.positional_embedding")
    assert not is_lookup_table("shared_scale")


@pytest.mark.slow
def test_the_rule_by_name_agrees_with_the_classes_of_transformers() -> None:
    """Of all 2-D and 3-D parameters of all classes, the rule sorts more than 99 in 100 as the class does."""
    counts: Counter[bool] = Counter()
    for model_type in config_types():
        one = built(model_type)
        if one is None:
            continue
        shapes, matrices, _ = layers(one.model)
        sizes = {name: shape for name, shape in shapes.items() if len(shape) in (2, 3)}
        by_name = matrices_by_name(sizes, one.config)
        counts.update((name in by_name) == (name in matrices) for name in sizes)
    assert counts[True] + counts[False] > 10_000
    assert counts[True] > 0.99 * (counts[True] + counts[False])
