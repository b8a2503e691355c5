"""Layers that cannot be stacked: the cause, before any weight is read."""

from __future__ import annotations

from pathlib import Path

import pytest

import hubmerge
from tests.run.stacked_models import CASES, PLAIN, TEXT, Case, made, recipe_of

REFUSED = {
    "zamba2": Case(
        "Zamba2ForCausalLM",
        {
            **TEXT,
            "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
            "hybrid_layer_ids": [1, 3],
            "mamba_d_state": 4,
            "mamba_headdim": 8,
            "n_mamba_heads": 2,
            "mamba_ngroups": 1,
            "num_mem_blocks": 1,
            "use_mamba_kernels": False,
            "attention_head_dim": 8,
            "attention_hidden_size": 16,
            "adapter_rank": 2,
        },
    ),
    "ernie": Case(
        "Ernie4_5_MoeForCausalLM",
        {
            **TEXT,
            "moe_num_experts": 2,
            "moe_k": 1,
            "moe_layer_start_index": 1,
            "moe_layer_end_index": 3,
            "moe_intermediate_size": 8,
            "moe_num_shared_experts": 1,
        },
    ),
}
"""Classes that compute the kinds of layers in ways that no config changes."""


@pytest.mark.parametrize(
    ("name", "ranges", "expected"),
    [
        (
            "deepseek",
            (("a", 1, 4), ("b", 0, 2)),
            "only the first layers can be of this kind, here it would be 0, 3, 4",
        ),
        ("jamba", (("a", 0, 3), ("b", 0, 3)), "its class computes them from the numbers of the layers"),
        ("zamba2", PLAIN, "the layers cannot be stacked in this order: Zamba2ForCausalLM would lack"),
        ("ernie", PLAIN, "the layers cannot be stacked in this order: Ernie4_5_MoeForCausalLM would lack"),
        ("gpt2", (("a", 0, 2), ("b", 2, 5)), "has 4 layers: expected a range within [0, 4]"),
        ("the vision tower of clip", (("a", 0, 2),), "there are several stacks of layers: text_model.encoder.layers"),
    ],
)
def test_what_cannot_be_stacked_is_refused(
    name: str, ranges: tuple[tuple[str, int, int], ...], expected: str, tmp_path: Path
) -> None:
    case = (CASES | REFUSED)[name]._replace(ranges=ranges, extra="")
    made(case, tmp_path)
    with pytest.raises(hubmerge.HubmergeError) as caught:
        hubmerge.plan(recipe_of(case, tmp_path), progress=None)
    assert expected in str(caught.value)
