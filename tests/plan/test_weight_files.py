"""A plan says which weight files are read and which are not, and where two formats of one model differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import hubmerge
from tests.checkpoints.files import random_tensors, write_folder
from tests.checks import every

TENSORS = random_tensors({"layer.weight": (4, 4), "norm.bias": (4,)})
RESHAPED = TENSORS | {"layer.weight": torch.zeros(5, 4)}
Write = Callable[[Path], object]


def planned(folder: Path, write: Write, *, only: int | None = None) -> hubmerge.Plan:
    models = [write_folder(folder / name, TENSORS, {}) for name in ("base", "one", "two")]
    for number, model in enumerate(models):
        if only in (None, number):
            write(model)
    keys = {
        "merge_method": "weight_average",
        "base_model": str(models[0]),
        "models": [{"model": str(one)} for one in models[1:]],
    }
    return hubmerge.plan(keys, progress=None)


def lines(plan: hubmerge.Plan, kind: str) -> list[str]:
    return [line.removeprefix(kind).strip() for line in plan.text.splitlines() if line.startswith(kind)]


def test_equal_choices_are_one_line(tmp_path: Path) -> None:
    plan = planned(tmp_path, lambda folder: torch.save(TENSORS, folder / "pytorch_model.bin"))
    assert lines(plan, "files") == [
        "3 models: model.safetensors; not read: pytorch_model.bin (safetensors are read first)"
    ]
    not_read = [{"name": "pytorch_model.bin", "reason": "safetensors are read first"}]
    assert plan.data["weight_files"] == [
        {"model": model, "read": ["model.safetensors"], "not_read": not_read} for model in ("base model", "one", "two")
    ]
    assert not any("pytorch_model.bin" in line for line in plan.data["loading"])


def test_a_model_in_one_format_needs_no_line(tmp_path: Path) -> None:
    plan = planned(tmp_path, lambda folder: (folder / "training_args.bin").write_bytes(b"x"))
    assert lines(plan, "files") == []
    assert [one["not_read"] for one in plan.data["weight_files"]] == [[], [], []]


DIFFERENCES: dict[str, tuple[Write, str]] = {
    "shape": (
        lambda folder: torch.save(RESHAPED, folder / "pytorch_model.bin"),
        "pytorch_model.bin has another model than model.safetensors, which is read: 'layer.weight' is 5 x 4",
    ),
    "more": (
        lambda folder: torch.save(TENSORS | {"head.weight": torch.zeros(2)}, folder / "pytorch_model.bin"),
        "pytorch_model.bin has other tensors than model.safetensors, which is read: it has head.weight",
    ),
    "fewer": (
        lambda folder: save_file({"norm.bias": torch.zeros(4)}, folder / "model.fp16.safetensors"),
        "model.fp16.safetensors has other tensors than model.safetensors, which is read: it lacks layer.weight",
    ),
    "adapter": (
        lambda folder: save_file({"a.lora_A.weight": torch.zeros(2, 4)}, folder / "adapter_model.safetensors"),
        "the adapter beside the model is not applied, as transformers does if peft is installed; to merge the model",
    ),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_formats_with_other_tensors_are_named(tmp_path: Path, name: str) -> None:
    write, expected = DIFFERENCES[name]
    loading = lines(planned(tmp_path, write, only=1), "loading")
    assert any(line.startswith(f"{tmp_path / 'one'}: {expected}") for line in loading)


def test_one_note_for_several_models(tmp_path: Path) -> None:
    loading = lines(planned(tmp_path, DIFFERENCES["shape"][0]), "loading")
    (line,) = [one for one in loading if "pytorch_model.bin" in one]
    assert every(str(tmp_path / name) in line for name in ("base", "one", "two"))


def test_integers_and_damaged_files_that_are_not_read_do_not_matter(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        torch.save(TENSORS | {"position_ids": torch.arange(3)}, folder / "pytorch_model.bin")
        torch.save(RESHAPED, folder / "pytorch_model.fp16.bin", _use_new_zipfile_serialization=False)
        (folder / "model.bf16.safetensors").write_bytes(b"damaged")

    plan = planned(tmp_path, write)
    assert len(lines(plan, "files")) == 1
    assert [line for line in lines(plan, "loading") if "not checked" not in line] == []


def write_adapter(folder: Path) -> Path:
    factors = {
        "base_model.model.layer.lora_A.weight": torch.ones(2, 4),
        "base_model.model.layer.lora_B.weight": torch.ones(4, 2),
    }
    write_folder(folder, {}, {})
    (folder / "model.safetensors").unlink()
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": str(folder.parent / "base")}
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"target_modules": ["layer"]}))
    save_file(factors, folder / "adapter_model.safetensors")
    torch.save(factors, folder / "adapter_model.bin")
    return folder


def planned_with_adapter(folder: Path, model: str) -> hubmerge.Plan:
    keys = {
        "merge_method": "weight_average",
        "base_model": str(folder / "base"),
        "models": [{"model": str(folder / "one")}, {"model": model, "name": "adapted"}],
    }
    return hubmerge.plan(keys, progress=None)


@pytest.mark.parametrize("with_model", [False, True], ids=["alone", "with its model"])
def test_files_of_adapters_are_named(tmp_path: Path, *, with_model: bool) -> None:
    for name in ("base", "one"):
        write_folder(tmp_path / name, TENSORS, {})
    adapter = write_adapter(tmp_path / "adapter")
    (adapter / "checkpoint-5").mkdir()
    (adapter / "checkpoint-5" / "adapter_model.bin").write_bytes(b"x")
    own = (
        "adapter_model.safetensors; not read: adapter_model.bin (safetensors are read first); checkpoint-5/ (a folder)"
    )
    if with_model:
        torch.save(TENSORS, tmp_path / "one" / "pytorch_model.bin")
        plan = planned_with_adapter(tmp_path, f"{tmp_path / 'one'}+{adapter}")
        whole = "model.safetensors; not read: pytorch_model.bin (safetensors are read first)"
        assert lines(plan, "files") == [f"one: {whole}", f"adapted: {whole}. Adapter: {own}"]
    else:
        plan = planned_with_adapter(tmp_path, str(adapter))
        assert lines(plan, "files") == [f"adapted: {own}"]
    (found,) = [one for one in plan.data["weight_files"] if one["model"] == "adapted"]
    assert found["read"] == (["model.safetensors"] if with_model else [])
    assert found["adapter"]["read"] == ["adapter_model.safetensors"]
    assert [one["name"] for one in found["adapter"]["not_read"]] == ["adapter_model.bin", "checkpoint-5/"]


def test_files_of_a_pipeline_adapter_are_named(tmp_path: Path) -> None:
    for name in ("base", "one"):
        write_folder(tmp_path / name, TENSORS, {})
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    factors = {"unet.layer.lora.down.weight": torch.ones(2, 4), "unet.layer.lora.up.weight": torch.ones(4, 2)}
    save_file(factors, adapter / "pytorch_lora_weights.safetensors")
    torch.save(factors, adapter / "pytorch_lora_weights.bin")
    plan = planned_with_adapter(tmp_path, f"{tmp_path / 'base'}+{adapter}")
    own = "pytorch_lora_weights.safetensors; not read: pytorch_lora_weights.bin (safetensors are read first)"
    assert lines(plan, "files") == [f"adapted: {own}"]
    assert not any("pytorch_lora_weights.bin" in one for one in lines(plan, "loading"))


def test_a_pickle_with_another_adapter_is_noted(tmp_path: Path) -> None:
    for name in ("base", "one"):
        write_folder(tmp_path / name, TENSORS, {})
    adapter = write_adapter(tmp_path / "adapter")
    torch.save({"base_model.model.norm.lora_A.weight": torch.ones(1, 4)}, adapter / "adapter_model.bin")
    loading = lines(planned_with_adapter(tmp_path, str(adapter)), "loading")
    assert any("adapter_model.bin has other tensors than adapter_model.safetensors" in line for line in loading)


def test_an_adapter_in_the_folder_of_its_model_is_applied(tmp_path: Path) -> None:
    for name in ("base", "one"):
        write_folder(tmp_path / name, TENSORS, {})
    both = write_adapter(tmp_path / "both")
    save_file(TENSORS, both / "model.safetensors")
    plan = planned_with_adapter(tmp_path, f"{both}+{both}")
    own = "adapter_model.safetensors; not read: adapter_model.bin (safetensors are read first)"
    assert lines(plan, "files") == [f"adapted: model.safetensors. Adapter: {own}"]
    assert not any("is not applied" in line for line in lines(plan, "loading"))
