"""Every command in the documentation runs, document by document, in the order in which it is written."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

import hubmerge
from hubmerge.cli.main import main
from hubmerge.stream.catalog import installed_catalog
from hubmerge.study import load_study
from hubmerge.study.schema import Study
from tests.docs.blocks import ROOT, Line, command_lines
from tests.docs.not_run import NOT_RUN
from tests.docs.world import World, recipe_of
from tests.stage import Stage

LINES = command_lines()
SLOW = {"docs/scaling.md", "docs/study.md", "docs/security.md"}
STATUS = {"outdated": {0, 10}}
"""Exit statuses of commands that are neither a success nor a failure."""

SOURCE = f"hubmerge@git+https://example.com/me/hubmerge@{'0' * 40}"
"""Where another machine would install hubmerge from: here it is installed from a folder."""

ACTUAL = {
    r"BASE MODEL\.\.\.": "me/base me/letters",
    r"--part 2/8 --out": "--part 2/3 --out",
    r"--part 2/8": "--part 2/2",
    r"--parts 8": "--parts 2",
    r"deploy hub-job recipe.yaml": f"deploy hub-job recipe.yaml --requirement {SOURCE}",
    r"git\+https://HOST/OWNER/REPO@COMMIT": SOURCE.partition("@")[2],
    r"~/keys/": "keys/",
}
"""Parts of commands that stand for something of the reader, and what stands for them here."""


def reason(line: Line) -> str | None:
    return next((why for start, why in NOT_RUN.items() if " ".join(line.words).startswith(start)), None)


def documents() -> list[object]:
    names = dict.fromkeys(line.place.split(":")[0] for line in LINES if reason(line) is None)
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in names]


@pytest.fixture(scope="module")
def world(stage: Stage) -> World:
    return World(stage)


@pytest.mark.parametrize("document", documents())
def test_commands_run(
    document: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    world.prepare(document, tmp_path)
    for line in (line for line in LINES if line.place.startswith(f"{document}:") and reason(line) is None):
        capsys.readouterr()
        proposes = line.words[1:2] == ("init",) and "--github" not in line.words
        if proposes:
            (tmp_path / "recipe.yaml").unlink()
        status = run(actual(line), capsys, line.output)
        if proposes:  # readers take the recipe of the page
            (tmp_path / "recipe.yaml").write_text(recipe_of(document), encoding="utf-8")
        assert status in STATUS.get(line.words[1], {0}), f"{line.place}: {line.text}\n{capsys.readouterr()}"


def actual(line: Line) -> list[str]:
    text = "\0".join(line.words)
    for pattern, value in ACTUAL.items():
        text = re.sub(pattern.replace(" ", "\0"), value.replace(" ", "\0"), text)
    return text.split("\0")


def run(words: Sequence[str], capsys: pytest.CaptureFixture[str], output: str | None) -> int:
    """Run a command and return its exit status: hubmerge in this process, other programs as they are."""
    if words[0] != "hubmerge":
        if shutil.which(words[0]) is None:
            pytest.skip(f"{words[0]} is not installed")
        return subprocess.run(list(words), check=False).returncode
    status = main(list(words[1:]))
    if output is not None:
        Path(output).write_text(capsys.readouterr().out, encoding="utf-8")
    return status


@pytest.mark.parametrize("line", [one for one in LINES if reason(one)], ids=lambda one: f"{one.place}-{one.words[0]}")
def test_what_is_not_run_exists(line: Line) -> None:
    """Targets of make, scripts, modules, recipes and studies are there and valid."""
    targets = (ROOT / "Makefile").read_text(encoding="utf-8")
    words = line.words
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", targets, re.MULTILINE)
    for word in words[1:]:
        path = ROOT / word
        if word.startswith(("recipes/", "benchmarks/", "tests/")) and path.suffix:
            assert path.exists(), word
        if word.startswith(("recipes/", "benchmarks/")) and path.suffix == ".py":
            compile(path.read_bytes(), word, "exec")
    if words[:2] in {("hubmerge", "run"), ("hubmerge", "plan")} and words[2].startswith("recipes/"):
        hubmerge.check(ROOT / words[2])
    if words[:2] == ("hubmerge", "study") and words[2].startswith("recipes/"):
        load_study(ROOT / words[2], installed_catalog())
    elif words[:2] == ("hubmerge", "study"):  # its recipe is written when the models are trained
        keys = yaml.safe_load((ROOT / words[2]).read_text(encoding="utf-8"))
        Study.model_validate_json(json.dumps(keys))
    if words[:2] == ("python", "-m"):
        name = words[2].replace(".", os.sep)
        assert any((ROOT / f"{name}{end}").exists() for end in (".py", "/__init__.py")) or words[2] == "pytest"
