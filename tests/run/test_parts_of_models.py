"""A run that merges a text model into a VLM: plan and card name the part that is merged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.checkpoints.composite import composite, text_model
from tests.checkpoints.families import save
from tests.checks import every

Command = Callable[..., tuple[int, str, str]]
PART = "model.language_model.* (qwen3_vl_text); kept from the base model: model.visual.* (qwen3_vl_vision)"


def test_plan_and_card_name_the_part_that_is_merged(hubmerge: Command, tmp_path: Path) -> None:
    save(composite("Qwen3-VL"), tmp_path / "base")
    save(text_model("Qwen3-VL", 1), tmp_path / "text")
    recipe = tmp_path / "recipe.yaml"
    keys = {"merge_method": "weight_average", "base_model": str(tmp_path / "base")}
    recipe.write_text(yaml.safe_dump({**keys, "models": [{"model": str(tmp_path / "text"), "name": "text"}]}))
    status, text, errors = hubmerge("plan", recipe)
    assert status == 0, errors
    assert f"Merged part: {PART}" in " ".join(text.split())
    assert "no checkpoint has model.visual\n" in text
    assert "`model.` replaced by `model.language_model.` in the names: 1 checkpoint" in text
    status, _, errors = hubmerge("run", recipe, "--out", tmp_path / "out", "--work-dir", tmp_path / "work")
    assert status == 0, errors
    report = json.loads((tmp_path / "out" / "hubmerge.json").read_text())
    assert f"merged part: {PART}" in report["steps"][0]["warnings"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert every(path in card for path in ("model.language_model.", "qwen3_vl_text", "model.visual."))
