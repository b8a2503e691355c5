"""Models in quantized formats are refused from their headers, whether the base model or all models are quantized."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

import hubmerge
from hubmerge.checkpoints import MergePlan, Selection, align, make_plan, open_checkpoint
from hubmerge.checkpoints.matching.quantized_names import is_quantized_part
from hubmerge.checkpoints.matching.selection import ALL_TENSORS
from hubmerge.checkpoints.matching.spare import Spare
from hubmerge.checkpoints.planning.matrices import MatrixRule
from hubmerge.errors import CheckpointError
from tests.checkpoints.files import random_tensors, write_folder
from tests.checks import every

RULE = MatrixRule(frozenset(), "By hand.", {})
OTHERS = random_tensors({"embed.weight": (8, 4), "norm.weight": (4,)})
INT32, INT8, UINT8, FP8 = torch.int32, torch.int8, torch.uint8, torch.float8_e4m3fn
F16, F32 = torch.float16, torch.float32

FORMATS: dict[str, tuple[dict[str, torch.dtype], str]] = {
    "gptq": ({"q.qweight": INT32, "q.qzeros": INT32, "q.scales": F16, "q.g_idx": INT32}, "gptq"),
    "awq": ({"q.qweight": INT32, "q.qzeros": INT32, "q.scales": F16}, "awq"),
    "exl2": ({"q.q_weight": INT32, "q.q_scale": INT32, "q.q_scale_max": F16}, "exl2"),
    "int8": ({"q.weight": INT8, "q.SCB": F32}, "bitsandbytes"),
    "nf4": (
        {
            "q.weight": UINT8,
            "q.weight.absmax": UINT8,
            "q.weight.nested_absmax": F32,
            "q.weight.quant_map": F32,
            "q.weight.quant_state.bitsandbytes__nf4": UINT8,
        },
        "bitsandbytes",
    ),
    "fp8": ({"q.weight": FP8, "q.weight_scale_inv": F32}, "fp8"),
    "fp8 without scales": ({"q.weight": FP8}, "fp8"),
    "compressed-tensors": ({"q.weight_packed": INT32, "q.weight_scale": F16}, "compressed-tensors"),
    "nvfp4": ({"q.weight": UINT8, "q.weight_scale": FP8, "q.weight_scale_2": F32}, "modelopt"),
    "mxfp4": ({"experts.gate_up_proj_blocks": UINT8, "experts.gate_up_proj_scales": UINT8}, "mxfp4"),
    "hqq": ({"q.W_q": UINT8, "q.scale": F16, "q.zero": F16}, "hqq"),
    "quanto": ({"q.weight._data": INT8, "q.weight._scale": F16}, "quanto"),
    "torchao": ({"q._weight_qdata": INT8, "q._weight_scale": F32}, "torchao"),
    "mlx": ({"q.weight": torch.uint32, "q.scales": F16, "q.biases": F16}, "mlx"),
    "joined projections": ({"q.in_proj_weight": INT8}, "own"),
    "experts with scales": ({"experts.gate_up_proj": INT8, "experts.gate_up_proj_scale": F16}, "own"),
    "packed": ({"q.weight_int4pack": INT32, "q.scales_and_zeros": F16}, "own"),
    "scaled fp8": ({"q.weight": FP8, "q.scale_weight": F32}, "own"),
    "marked fp8": ({"q.weight": FP8, "scaled_fp8": FP8}, "own"),
}
WITHOUT_CONFIG = set(FORMATS) - {"fp8 without scales"}


@pytest.fixture
def plan_all(tmp_path: Path) -> Callable[..., MergePlan]:
    """Plan a merge of three models with the tensors and the config of one format."""

    def plan(name: str, selection: Selection = ALL_TENSORS, *, described: bool = True) -> MergePlan:
        codes, method = FORMATS[name]
        tensors: Mapping[str, torch.Tensor] = {
            **OTHERS,
            **{part: torch.ones(4, 4).to(dtype) for part, dtype in codes.items()},
        }
        config = {"quantization_config": {"quant_method": method}} if described else {}
        base, *others = (
            open_checkpoint(write_folder(tmp_path / label, tensors, config), label) for label in ("base", "one", "two")
        )
        aligned = [align(base, other, selection=selection) for other in others]
        return make_plan(base, aligned, RULE, selection=selection)

    return plan


@pytest.mark.parametrize("name", FORMATS)
def test_quantized_models_are_refused_by_name_of_the_format(name: str, plan_all: Callable[..., MergePlan]) -> None:
    codes, method = FORMATS[name]
    with pytest.raises(CheckpointError, match=rf"quantized format \({method}\)") as caught:
        plan_all(name)
    assert caught.value.message.startswith("base: tensor ")
    assert caught.value.context.tensor in codes
    assert caught.value.hint == "merge an unquantized version of this model"


@pytest.mark.parametrize("name", sorted(WITHOUT_CONFIG))
def test_quantized_models_are_refused_without_settings(name: str, plan_all: Callable[..., MergePlan]) -> None:
    with pytest.raises(CheckpointError, match=r"in a quantized format that|belongs to a quantized format,") as caught:
        plan_all(name, described=False)
    assert caught.value.context.tensor in FORMATS[name][0]


@pytest.mark.parametrize("name", FORMATS)
def test_excluded_codes_are_kept(name: str, plan_all: Callable[..., MergePlan]) -> None:
    codes, _ = FORMATS[name]
    plan = plan_all(name, Selection(include=("embed.*", "norm.*")))
    assert {tensor.name for tensor in plan.kept} == set(codes)
    assert every(tensor.copied for tensor in plan.kept)


def test_selected_codes_beside_excluded_marks_are_refused(plan_all: Callable[..., MergePlan]) -> None:
    with pytest.raises(CheckpointError, match=r"'q.weight' is stored as float8_e4m3fn, in a quantized format"):
        plan_all("marked fp8", Selection(exclude=("scaled_fp8",)), described=False)


def test_masks_and_tables_of_integers_are_no_codes(tmp_path: Path) -> None:
    tensors = {
        **OTHERS,
        "attn.bias": torch.ones(1, 1, 4, 4, dtype=UINT8),
        "attn.position_ids": torch.ones(1, 4, dtype=INT32),
        "attn.relative_position_index": torch.ones(4, 4, dtype=torch.int64),
        "attn.logit_scale": torch.ones(1),
    }
    base = open_checkpoint(write_folder(tmp_path / "base", tensors, {}), "base")
    plan = make_plan(base, [align(base, base)], RULE)
    assert {tensor.name for tensor in plan.merged} == {*OTHERS, "attn.logit_scale"}


def test_integers_in_place_of_a_parameter_are_codes(tmp_path: Path) -> None:
    experts = "layers.0.experts.gate_up_proj"
    base = open_checkpoint(write_folder(tmp_path, {**OTHERS, experts: torch.ones(2, 4, 4).to(INT8)}, {}), "base")
    known = MatrixRule(frozenset(), "By hand.", {}, spare=Spare(known=frozenset({experts})))
    assert "integers" in next(one.reason for one in make_plan(base, [align(base, base)], RULE).kept)
    with pytest.raises(CheckpointError, match=f"{experts}' is stored as int8, in a quantized format"):
        make_plan(base, [align(base, base)], known)


@pytest.mark.parametrize("shape", [(4, 4), (4, 1)])
def test_integers_without_scales_are_the_cause_also_if_their_shape_differs(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    base = open_checkpoint(write_folder(tmp_path / "base", {**OTHERS, "q.weight": torch.ones(4, 4)}, {}), "base")
    folder = write_folder(tmp_path / "packed", {**OTHERS, "q.weight": torch.ones(shape).to(INT32)}, {})
    with pytest.raises(CheckpointError, match=r"'q\.weight' is stored as int32, expected a floating-point dtype"):
        align(base, open_checkpoint(folder, "packed"))


@pytest.mark.parametrize("method", ["task_arithmetic", "weight_average", "magmax", "ties", "opcm"])
@pytest.mark.parametrize("dtype", [FP8, torch.float8_e5m2])
def test_plain_8_bit_floats_are_merged(method: str, dtype: torch.dtype) -> None:
    base, model = ({"l.weight": torch.full((4, 4), value).to(dtype)} for value in (1.0, 2.0))
    merged = hubmerge.merge_state_dicts(base, [model], method=method)
    assert merged["l.weight"].dtype == dtype
    assert merged["l.weight"].to(F32).max() > 1.0


@pytest.mark.parametrize(
    "name", ["scale", "scales", "layer_scale", "logit_scale", "q.scale", "q.input_blocks", "q.bias"]
)
def test_scales_of_plain_models_are_no_quantized_format(name: str) -> None:
    assert not is_quantized_part(name, {name, "q.weight", "q.bias"})
