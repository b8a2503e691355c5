"""The text of `hubmerge plan` on terminals of several widths."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from hubmerge.cli.main import main
from hubmerge.plan.costs import fitted
from tests.cli.terminal import as_terminal
from tests.stage import Stage

Options: TypeAlias = tuple[str, ...]


@pytest.mark.parametrize("columns", [60, 80, 160])
@pytest.mark.parametrize("options", [(), ("--verbose",)], ids=["screen", "verbose"])
def test_a_plan_fits_the_terminal(
    stage: Stage,
    tmp_path: Path,
    repo_name: Any,
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
    options: tuple[str, ...],
) -> None:
    recipe = stage.write(tmp_path, stage.recipe(repo_name("merged")))
    with as_terminal(columns, monkeypatch.setenv) as terminal:
        status = main(["plan", str(recipe), *options])
    screen = terminal.close()
    assert status == 0, screen.text
    assert screen.wrapped == 0
    commits = re.findall(r"\b[0-9a-f]{12}\b", screen.text)
    assert len(set(commits)) == 1 + len(stage.towers)


def test_words_stay_whole() -> None:
    line = "warning  the repo me/a-very-long-name-of-a-model is gated"
    assert list(fitted(["short", line], 30)) == [
        "short",
        "warning  the repo",
        "         me/a-very-long-name-of-a-model",
        "         is gated",
    ]
    assert list(fitted(["            first second"], 20)) == ["            first", "            second"]
