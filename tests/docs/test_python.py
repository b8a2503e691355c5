"""Blocks of Python in the documentation run, in their order, against the embedded Hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import HfApi

import hubmerge
from tests.docs.blocks import ROOT, blocks
from tests.layouts.classifiers import make_model
from tests.layouts.test_heads import CASES
from tests.stage import Stage

BLOCKS = blocks("python")
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
IMPORTS = (ROOT / "tests" / "examples" / "moving_average.py").read_text(encoding="utf-8")
Names = Callable[..., str]
Spaces = list[dict[str, Any]]


def test_every_document_with_python_is_run_here() -> None:
    assert {block.document for block in BLOCKS} == {"README.md", "CONTRIBUTING.md", "docs/api.md", "docs/layouts.md"}


def run(document: str, names: Mapping[str, str], start: Mapping[str, Any] | None = None) -> Spaces:
    """Run the blocks of a document, with other repos in place of its names; return the variables of each block."""
    spaces: Spaces = []
    for block in (block for block in BLOCKS if block.document == document):
        code = block.text
        for name, actual in names.items():
            code = code.replace(f'"{name}', f'"{actual}')
        spaces.append({"__name__": "example", **(start or {})})
        exec(compile("\n" * (block.line - 1) + code, block.document, "exec"), spaces[-1])  # noqa: S102 - our own code
    return spaces


def test_the_python_api_page(
    stage: Stage,
    tmp_path: Path,
    repo_name: Names,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = repo_name("merged")
    letters, digits, _ = stage.towers.values()
    stage.write(tmp_path, stage.recipe(target, evaluate=None))
    monkeypatch.chdir(tmp_path)
    names = {"me/base": stage.base, "me/letters": letters, "me/digits": digits, "me/merged": target}
    spaces = run("docs/api.md", names)
    merged, tensors, *_ = spaces
    assert (merged["folder"] / "config.json").is_file()
    assert set(tensors["tensors"]) == {"weight", "bias"}
    assert torch.equal(spaces[-1]["merged"]["layer.weight"], torch.eye(2) / 2)
    output = capsys.readouterr().out
    assert "recipe merge_method\n" in output
    assert "OK: opcm, 1 checkpoint\n" in output
    assert "(recomputed and compared): 0 differences" in output
    assert "nothing changed\n" in output


def test_every_public_function_is_on_the_page() -> None:
    modules = [names for module, names in hubmerge._NAMES.items() if module.startswith("hubmerge.api.")]
    functions = [name for names in modules for name in names if name.islower()]
    assert {"check", "plan", "run", "verify"} <= set(functions)
    for name in functions:
        assert f"hubmerge.{name}(" in PAGE or f"`{name}`" in PAGE, name


def test_the_readme(
    stage: Stage, tmp_path: Path, repo_name: Names, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = repo_name("merged")
    one, other, _ = stage.towers.values()
    stage.write(tmp_path, stage.recipe(target, entries=tuple(stage.towers)[:1]))
    monkeypatch.chdir(tmp_path)
    names = {"base": stage.base, 'a"': f'{one}"', 'b"': f'{other}"', "me/merged@step-03": target, "me/merged": target}
    generator = torch.Generator().manual_seed(0)
    base, *tuned = ({"x.weight": torch.randn(4, 3, generator=generator)} for _ in range(3))
    (space,) = run("README.md", names, {"base": base, "a": tuned[0], "b": tuned[1]})
    assert space["verdict"].verified
    assert space["tensors"]["x.weight"].shape == (4, 3)
    assert (tmp_path / "merged" / "config.json").is_file()
    assert "'accuracy'" in capsys.readouterr().out


def test_a_head_beside_the_merged_model(tmp_path: Path, repo_name: Names) -> None:
    target, (base_class, settings) = repo_name("merged"), CASES["BertForSequenceClassification"]
    make_model(base_class, settings, 0).save_pretrained(tmp_path / "base")
    make_model("BertForSequenceClassification", settings, 1, ["bad", "good"]).save_pretrained(tmp_path / "sst2")
    recipe = {
        "merge_method": "weight_average",
        "base_model": str(tmp_path / "base"),
        "models": [{"model": str(tmp_path / "sst2"), "name": "sst2"}],
        "publish": {"repo": target},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    hubmerge.run(tmp_path / "recipe.yaml", progress=None).finish()
    HfApi().create_tag(target, tag="step-03", revision="step-01")
    (space,) = run("docs/layouts.md", {"owner/merged": target})
    assert type(space["model"]).__name__ == "BertForSequenceClassification"


def test_the_method_in_contributing() -> None:
    """tests/project compares it with the file whose method is tested."""
    start: dict[str, Any] = {"__name__": "example"}
    exec(compile(IMPORTS, "moving_average.py", "exec"), start)  # noqa: S102 - our own code
    (space,) = run("CONTRIBUTING.md", {}, start)
    assert space["MovingAverage"] is not start["MovingAverage"]
    base = {"weight": torch.zeros(2, 2)}
    tuned = [{"weight": torch.eye(2)}, {"weight": -torch.eye(2)}]
    merged = hubmerge.merge_state_dicts(base, tuned, method=space["MovingAverage"]())
    assert torch.equal(merged["weight"], torch.zeros(2, 2))
