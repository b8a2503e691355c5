"""README, CONTRIBUTING and the pages under docs/ are true: recipes check, commands parse, code is the code."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
import yaml
from typer.main import get_command

from hubmerge.cli.app import app
from hubmerge.methods import JointParameters, NoParameters, Norms, TensorInput
from hubmerge.stream.catalog import installed_catalog
from merge_recipes import load_recipe
from tests.cli.parsing import parse
from tests.docs.blocks import DOCUMENTS, ROOT, Line, blocks, command_lines
from tests.examples.median import Median
from tests.examples.moving_average import MovingAverage


def text_of(document: str, language: str) -> str:
    """Return the only block of a language in a document."""
    (block,) = (block for block in blocks(language) if block.document == document)
    return block.text


def test_the_recipe_in_the_readme_is_one(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text_of("README.md", "yaml"))
    loaded = load_recipe(tmp_path / "recipe.yaml", installed_catalog())
    assert [entry.name for entry in loaded.recipe.entries] == ["sun397", "stanford-cars", "resisc45"]


COMMANDS = [line for line in command_lines() if line.words[0] == "hubmerge"]


@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: " ".join([line.place, *line.words[1:2]]))
def test_commands_in_documents_parse(line: Line) -> None:
    parse(["8000" if word == "PORT" else word for word in line.words[1:]])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target and not target.startswith("/"):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_attacks_of_the_table_are_tests() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    kinds = yaml.safe_load((ROOT / "benchmarks" / "attacks.yaml").read_text(encoding="utf-8"))
    assert kinds
    for kind in kinds:
        assert f"| {kind['kind']} | {kind['tried']} | {kind['found']} | {kind['now']} |" in page
        for target in kind["tests"]:
            file, _, name = target.partition("::")
            assert f"def {name}" in (ROOT / file).read_text(encoding="utf-8"), target


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [*get_command(app).commands]  # type: ignore[attr-defined]
    assert "run" in commands
    for command in commands:
        assert f"hubmerge {command}" in text, command


def test_the_method_in_contributing_is_the_tested_one() -> None:
    shown = text_of("CONTRIBUTING.md", "python")
    code = (ROOT / "tests" / "examples" / "moving_average.py").read_text(encoding="utf-8")
    assert code.endswith("\n\n" + shown)
    assert len([line for line in shown.splitlines() if line.strip()]) <= 22


def test_the_example_of_a_joint_method_is_a_median() -> None:
    values = [torch.tensor([value]) for value in (1.0, 5.0, 2.0)]
    assert Median().merge(None, values, JointParameters(NoParameters(), (NoParameters(),) * 3)).tolist() == [2.0]


def test_the_example_method_is_a_moving_average() -> None:
    generator = torch.Generator().manual_seed(0)
    base, *checkpoints = (torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(5))
    method, parameters = MovingAverage(), MovingAverage.Parameters(newest=0.25)
    accumulated, average = torch.zeros_like(base), checkpoints[0]
    for step, checkpoint in enumerate(checkpoints, start=1):
        accumulated = method.absorb(TensorInput(accumulated, checkpoint - base, parameters, step)).accumulated
        average = average if step == 1 else 0.75 * average + 0.25 * checkpoint
        scale = method.scale(Norms(float(accumulated.norm()), (1.0,) * step), parameters)
        torch.testing.assert_close(base + accumulated / scale, average, rtol=1e-12, atol=1e-12)
        assert math.isfinite(scale)
