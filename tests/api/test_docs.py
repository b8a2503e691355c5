"""The examples of docs/api.md run, in their order, against the embedded Hub."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import hubmerge
from tests.stage import Stage

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_examples_run(
    stage: Stage,
    tmp_path: Path,
    repo_name: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = repo_name("merged")
    letters, digits, _ = stage.towers.values()
    names = {"me/base": stage.base, "me/letters": letters, "me/digits": digits, "me/merged": target}
    stage.write(tmp_path, stage.recipe(target, evaluate=None))
    monkeypatch.chdir(tmp_path)
    spaces: list[dict[str, Any]] = []
    for block in BLOCKS:
        for name, actual in names.items():
            block = block.replace(f'"{name}', f'"{actual}')
        spaces.append({"__name__": "example"})
        exec(compile(block, "docs/api.md", "exec"), spaces[-1])  # noqa: S102 - the page's own code
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
    functions = {module: names for module, names in hubmerge._NAMES.items() if module.startswith("hubmerge.api.")}
    for name in (name for names in functions.values() for name in names if name.islower()):
        assert f"hubmerge.{name}(" in PAGE or f"`{name}`" in PAGE, name
