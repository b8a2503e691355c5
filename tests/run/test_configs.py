"""Runs of models whose config.json does not fit their weights, or names no class that transformers knows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hubmerge.report.report import RunReport
from hubmerge.verify.reports import compare_reports
from tests.checkpoints.families import make, save, tuned
from tests.checkpoints.files import random_tensors, write_folder
from tests.run.test_warnings import write

Command = Callable[..., tuple[int, str, str]]
QWEN = "Qwen2ForCausalLM"
BY_NAME = "found by name, not by the model's class"
OWN = {"model_type": "some_moe", "architectures": ["SomeMoe"], "auto_map": {"AutoModel": "modeling_some.SomeMoe"}}
SHAPES = {
    "model.embed_tokens.weight": (12, 8),
    "model.layers.0.mlp.experts.gate_up_proj": (3, 8, 6),
    "model.layers.0.mlp.shared_experts.up_proj.weight": (8, 8),
    "model.layers.0.mlp.shared_expert_gate.weight": (8, 8),
    "model.layers.0.norm.weight": (8,),
}


def edit_config(folder: Path, change: Mapping[str, Any]) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))


def test_plan_run_and_card_say_that_matrices_were_found_by_name(hubmerge: Command, tmp_path: Path) -> None:
    models = [
        write_folder(tmp_path / name, random_tensors(SHAPES, seed), OWN)
        for seed, name in enumerate(("base", "one", "two"))
    ]
    recipe, out = write(tmp_path, *models), tmp_path / "out"
    status, text, errors = hubmerge("plan", recipe)
    assert status == 0, errors
    assert "merged   3 weight matrices, 2 other tensors" in text
    assert "has no class for the model_type 'some_moe'" in text
    screen = " ".join(text[text.index("merged   3 ") : text.index("kept  ")].split())
    assert "Weight matrices: 2-D tensors named `.weight` " in screen
    assert screen.endswith("has no class for the model_type 'some_moe').")
    status, text, errors = hubmerge("run", recipe, "--out", out)
    assert status == 0, errors
    (line,) = [line for line in text.splitlines() if BY_NAME in line]
    assert line.startswith("warning: 3 weight matrices found by name")
    assert "copy modeling_some.py of " in text
    first, second = json.loads((out / "hubmerge.json").read_text())["steps"]
    assert [BY_NAME in warning for warning in first["warnings"]] == [True]
    assert not [warning for warning in second["warnings"] if BY_NAME in warning]
    assert first["tensors"]["weight_matrices"] == 3
    card = (out / "README.md").read_text()
    assert card.count("Step 1: 3 weight matrices found by name") == 1


def test_a_model_of_a_known_class_has_no_such_warning(hubmerge: Command, tmp_path: Path) -> None:
    recipe = write(tmp_path, save(make(QWEN), tmp_path / "base"), save(tuned(QWEN, 1), tmp_path / "one"))
    status, text, errors = hubmerge("run", recipe, "--out", tmp_path / "out")
    assert status == 0, errors
    assert "by name" not in text
    assert "by name" not in (tmp_path / "out" / "README.md").read_text()


def test_report_and_card_name_the_weight_files_that_are_not_read(hubmerge: Command, tmp_path: Path) -> None:
    tensors = random_tensors(SHAPES, 0)
    models = [write_folder(tmp_path / name, random_tensors(SHAPES, 0), OWN) for name in ("base", "one", "two")]
    for model in models[:2]:
        torch.save(tensors, model / "pytorch_model.bin")
    recipe, out = write(tmp_path, *models), tmp_path / "out"
    status, _, errors = hubmerge("run", recipe, "--out", out)
    assert status == 0, errors
    report = RunReport.from_dict(json.loads((out / "hubmerge.json").read_text()))
    choice = "weight files: model.safetensors; not read: pytorch_model.bin (safetensors are read first)"
    chosen = [[one for one in step.warnings if one.startswith("weight files")] for step in report.steps]
    assert chosen == [[choice], []]
    assert (out / "README.md").read_text().count("(safetensors are read first)") == 1
    kept = tuple(one for one in report.steps[0].warnings if one != choice)
    without = replace(report, steps=(replace(report.steps[0], warnings=kept), *report.steps[1:]))
    assert {finding.verdict for finding in compare_reports(report, without)} == {"same"}


@pytest.mark.parametrize("where", ["base", "one"])
@pytest.mark.parametrize(
    "settings",
    [
        {"quant_method": "fp8", "weight_block_size": [128, 128]},
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        {"quant_method": "gptq", "bits": 4, "group_size": 128},
    ],
)
def test_a_model_with_settings_of_a_quantized_format_over_plain_weights(
    hubmerge: Command, tmp_path: Path, settings: dict[str, Any], where: str
) -> None:
    import transformers

    folders = {"base": save(make(QWEN), tmp_path / "base"), "one": save(tuned(QWEN, 1), tmp_path / "one")}
    edit_config(folders[where], {"quantization_config": settings})
    (folders[where] / "quantize_config.json").write_text("{}")
    recipe, out = write(tmp_path, *folders.values()), tmp_path / "out"
    status, text, errors = hubmerge("run", recipe, "--out", out)
    assert status == 0, errors
    assert ("has quantization_config, but all weights are plain numbers" in text) == (where == "base")
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    assert not (out / "quantize_config.json").exists()
    model, found = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(found.values())
    expected = load_file(folders["one"] / "model.safetensors")
    for name, value in model.state_dict().items():
        if name in expected:
            torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-7)


def test_the_written_config_is_the_one_of_the_plan(hubmerge: Command, tmp_path: Path) -> None:
    """A stale dtype, settings of a quantized format and code: the written config loads, in the dtype of the weights."""
    import transformers

    base, one = save(make(QWEN), tmp_path / "base"), save(tuned(QWEN, 1), tmp_path / "one")
    code = {"auto_map": {"AutoModelForCausalLM": "modeling_qwen.Model"}}
    edit_config(base, {"dtype": "float16", "torch_dtype": "float16", "compression_config": {"format": "x"}, **code})
    recipe, out = write(tmp_path, base, one), tmp_path / "out"
    status, output, errors = hubmerge("plan", recipe, "--json")
    assert status == 0, errors
    (plan,) = [event for line in output.splitlines() if (event := json.loads(line))["event"] == "plan"]
    notes = "\n".join(plan["loading"])
    for words in ("has compression_config", "sets the dtype float16, but", "left out, because transformers has the"):
        assert words in notes
    status, _, errors = hubmerge("run", recipe, "--out", out)
    assert status == 0, errors
    written = json.loads((out / "config.json").read_text())
    assert written["dtype"] == written["torch_dtype"] == "float32"
    assert not {"compression_config", "auto_map"} & set(written)
    assert transformers.AutoModelForCausalLM.from_pretrained(out).dtype == torch.float32


def test_nested_configs_have_the_written_dtype(hubmerge: Command, tmp_path: Path) -> None:
    base, one = save(make("CLIPModel"), tmp_path / "base"), save(tuned("CLIPModel", 1), tmp_path / "one")
    recipe, out = write(tmp_path, base, one, out_dtype="bfloat16"), tmp_path / "out"
    status, _, errors = hubmerge("run", recipe, "--out", out)
    assert status == 0, errors
    written = json.loads((out / "config.json").read_text())
    configs = [written, written["text_config"], written["vision_config"]]
    assert [config["dtype"] for config in configs] == ["bfloat16"] * 3


def test_weights_of_further_modules_are_named(hubmerge: Command, tmp_path: Path) -> None:
    """sentence-transformers keeps a dense layer in a folder of its own: the base model's is copied."""
    folders = [save(make(QWEN), tmp_path / "base"), save(tuned(QWEN, 1), tmp_path / "one")]
    for number, folder in enumerate(folders):
        (folder / "modules.json").write_text(json.dumps([{"path": ""}, {"path": "2_Dense"}]))
        write_folder(folder / "2_Dense", random_tensors({"linear.weight": (4, 16)}, number), {})
    recipe, out = write(tmp_path, *folders), tmp_path / "out"
    status, text, errors = hubmerge("run", recipe, "--out", out)
    assert status == 0, errors
    assert "not merged: the base model's 2_Dense/model.safetensors, whatever the checkpoints have there" in text
    written, kept = (load_file(folder / "2_Dense" / "model.safetensors") for folder in (out, folders[0]))
    assert torch.equal(written["linear.weight"], kept["linear.weight"])


CODE = """
import torch
from transformers import PreTrainedConfig, PreTrainedModel


class OwnConfig(PreTrainedConfig):
    model_type = "own"


class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(8, 8)
        self.post_init()
"""


def test_code_in_a_repo_loads_from_there_and_the_step_is_verified(
    hubmerge: Command, tmp_path: Path, repo_name: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers
    from huggingface_hub import HfApi

    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    api, repos = HfApi(), [repo_name("base"), repo_name("one")]
    code = {"AutoConfig": "modeling_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    config = {"model_type": "own", "architectures": ["OwnModel"], "auto_map": code, "torch_dtype": "float16"}
    for seed, repo in enumerate(repos):
        tensors = random_tensors({"layer.weight": (8, 8), "layer.bias": (8,)}, seed)
        folder = write_folder(tmp_path / repo, tensors, config)
        (folder / "modeling_own.py").write_text(CODE)
        api.create_repo(repo)
        api.upload_folder(repo_id=repo, folder_path=folder)
    target = repo_name("merged")
    recipe = tmp_path / "recipe.yaml"
    models = [{"model": repos[1], "name": "one"}]
    content = {"merge_method": "opcm", "base_model": repos[0], "models": models, "publish": {"repo": target}}
    recipe.write_text(json.dumps(content))
    status, text, errors = hubmerge("run", recipe)
    assert status == 0, errors
    assert f"the merged model's config.json names it in {repos[0]}" in text
    model = transformers.AutoModel.from_pretrained(target, trust_remote_code=True)
    assert type(model).__name__ == "OwnModel"
    assert model.dtype == torch.float32
    assert not (Path(api.snapshot_download(target)) / "modeling_own.py").exists()
    status, text, errors = hubmerge("verify", target, "--work-dir", tmp_path / "verify")
    assert status == 0, text + errors
    assert "differs" not in text
