"""Randomly damaged input ends in a message, never in a traceback or an internal error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hubmerge.cli.main import main
from tests.reliability.fuzzing import GROWING, RECIPE, fuzz_checkpoints, fuzz_recipes, make_folders


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def call(*arguments: str | Path) -> tuple[int, str]:
        status = main(list(map(str, arguments)))
        return status, "".join(capsys.readouterr())

    return call


@pytest.mark.parametrize("text", [RECIPE, GROWING])
def test_undamaged_recipes_are_valid(tmp_path: Path, command: Callable[..., tuple[int, str]], text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    make_folders(tmp_path)
    assert command("check", tmp_path / "recipe.yaml", "--quiet") == (0, "")


@pytest.mark.parametrize("seed", [1, 2])
def test_damaged_recipes(tmp_path: Path, command: Callable[..., tuple[int, str]], seed: int) -> None:
    endings = fuzz_recipes(100, seed, tmp_path, command)
    assert endings["exit status 2"] > 10
    assert endings["exit status 0"] > 0


def test_damaged_checkpoints(tmp_path: Path, command: Callable[..., tuple[int, str]]) -> None:
    endings = fuzz_checkpoints(30, 1, tmp_path, command)
    assert endings["exit status 4"] > 5
    assert endings["exit status 0"] > 0


@pytest.mark.slow
def test_many_damaged_recipes(tmp_path: Path, command: Callable[..., tuple[int, str]]) -> None:
    fuzz_recipes(1000, 3, tmp_path, command)


@pytest.mark.slow
def test_many_damaged_checkpoints(tmp_path: Path, command: Callable[..., tuple[int, str]]) -> None:
    fuzz_checkpoints(200, 3, tmp_path, command)
