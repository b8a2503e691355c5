"""Names of the tensors that only quantized formats have."""

from __future__ import annotations

from collections.abc import Collection

_PARTS = frozenset(
    {
        # GPTQ, AWQ, EXL2, EXL3
        *("qweight", "qzeros", "g_idx", "q_weight", "q_scale", "q_scale_max", "q_groups", "q_perm", "q_invperm"),
        *("trellis", "suh", "svh"),
        # compressed-tensors, 8-bit floats, ModelOpt
        *("weight_packed", "weight_scale", "weight_scale_inv", "weight_scales", "weight_scale_2"),
        *("weight_zero_point", "weight_g_idx", "weight_global_scale", "input_scale", "input_global_scale"),
        *("input_zero_point", "input_scale_ub"),
        # bitsandbytes
        *("SCB", "absmax", "quant_map", "nested_absmax", "nested_quant_map"),
        # HQQ, QuIP#, quanto, torchao
        *("W_q", "Qidxs", "_data", "_scale", "_shift", "_weight_qdata", "_weight_scale", "_weight_zero_point"),
    }
)
_BESIDE = frozenset({"scale", "scales", "zero", "zeros", "zero_point", "biases", "meta"})
"""Last parts that belong to a quantized format only beside a part that no other format has."""

SCALED_MARK = "scaled_fp8"
"""Tensor that says that all 8-bit floats of a file have scales, which may be 1 and left out."""

_BLOCKS = "_blocks"
"""End of the codes of MXFP4: `gate_up_proj_blocks`, with the scales in `gate_up_proj_scales`."""


def is_quantized_part(name: str, names: Collection[str]) -> bool:
    """Return True if a tensor belongs to a quantized format by its name.

    Args:
        name: the name of the tensor in the files.
        names: the names of all tensors in the files.

    >>> is_quantized_part("layer.scales", ["layer.qweight", "layer.scales"]), is_quantized_part("layer.scales", [])
    (True, False)
    """
    module, _, last = name.rpartition(".")
    if last in _PARTS or last.startswith("bitsandbytes__") or name == SCALED_MARK:
        return True
    if last.endswith("_scales") and f"{name.removesuffix('_scales')}{_BLOCKS}" in names:
        return True
    if last.endswith(_BLOCKS) and f"{name.removesuffix(_BLOCKS)}_scales" in names:
        return True
    return last in _BESIDE and any(f"{module}.{part}" in names for part in _PARTS)
