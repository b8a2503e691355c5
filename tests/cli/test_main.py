"""The command line: help, mistakes in arguments, errors and exit statuses."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from hubmerge.api import merging
from hubmerge.cli.app import app
from hubmerge.cli.main import main
from hubmerge.cli.options import AUTOMATE, CHECK, MERGE, PUBLISH, STUDY, TOOLS

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = str(ROOT / "recipes" / "quickstart.yaml")


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_all_commands_by_panel(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    shown = capsys.readouterr().out
    places = [shown.index(f" {panel} ") for panel in (MERGE, CHECK, PUBLISH, AUTOMATE, STUDY, TOOLS)]
    assert places == sorted(places)
    for command in get_command(app).commands:  # type: ignore[attr-defined]
        assert f" {command} " in shown


@pytest.mark.parametrize("group", ["hub", "deploy"])
def test_a_group_alone_prints_its_help(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([group]) == 0
    assert f"Usage: hubmerge {group}" in capsys.readouterr().out


def test_every_argument_has_a_help_text() -> None:
    commands = [get_command(app)]
    seen = 0
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        assert command.help, command.name
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{command.name} {parameter.name}"
            seen += 1
    assert seen > 40


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["chekc", "recipe.yaml"], "no such command 'chekc'", "did you mean 'check'? See hubmerge --help"),
        (
            ["run", "--lockd", "recipe.yaml"],
            "no such option: --lockd",
            "did you mean --locked? See hubmerge run --help",
        ),
        (["check"], "missing argument 'RECIPE'", "hubmerge check --help"),
        (
            ["run", "recipe.yaml", "./merged"],
            "unexpected argument: ./merged",
            "write folders for results as --out ./merged; see hubmerge run --help",
        ),
        (["run", "recipe.yaml", "--cuda"], "no such option: --cuda", "leave it out: a GPU is used if torch finds one"),
        (
            ["run", "a.yaml", "--lazy-unpickle"],
            "no such option: --lazy-unpickle",
            "leave it out: tensors are read one by one",
        ),
        (
            ["run", "a.yaml", "--out-shard-size=2GB"],
            "no such option: --out-shard-size",
            "write it in the recipe: max_shard_size: 5GB",
        ),
        (["plan", "a.yaml", "-v"], "no such option: -v", "write it as --verbose; see hubmerge plan --help"),
        (["lock", "a.yaml", "-x"], "no such option: -x", "hubmerge lock --help"),
        (["my recipe.yml", "./merged"], "no such command 'my recipe.yml'", "hubmerge run 'my recipe.yml'"),
        (["merge", "recipe.yaml"], "no such command 'merge'", "hubmerge run RECIPE"),
        (["lock", "recipe.yaml", "x", "y"], "unexpected argument: x y", "hubmerge lock --help"),
        (["sign", "me/merged"], "a key or with an identity", "`hubmerge sign me/merged --key FILE`"),
        (["rollback", "me/merged", "--to", "third"], "third is not a step", "hubmerge rollback --help"),
        (["run", "recipe.yaml", "--every-step"], "--every-step requires --out DIR", "add --out DIR"),
        (["check", QUICKSTART, "-q", "--json"], "--quiet and --json exclude each other", "hubmerge check --help"),
        (["init", "recipe.yaml"], "a recipe with --github", "hubmerge init --help"),
        (
            ["deploy", "hub-job", "recipe.yaml", "--schedule", "@daily", "--on-update"],
            "--schedule and --on-update exclude each other",
            "hubmerge deploy hub-job --help",
        ),
    ],
)
def test_a_mistake_in_the_arguments_is_an_error_like_others(
    words: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    as_json = "--json" in words
    if not as_json:
        assert shown.err.startswith("hubmerge: ")
        assert message in shown.err
        assert f"  hint: {hint}" in shown.err
        assert main([*words, "--json"]) == 2
        shown = capsys.readouterr()
    error = json.loads(shown.out)
    assert (error["event"], error["code"], error["exit_code"]) == ("error", "usage", 2)
    assert message in error["message"]
    assert hint in error["hint"]


def test_an_error_in_a_recipe_has_its_fields_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("merge_method: opmc\nbase_model: me/base\nmodels: [{model: me/a}]\n", encoding="utf-8")
    assert main(["check", str(recipe), "--json"]) == 2
    error = json.loads(capsys.readouterr().out)
    assert (error["event"], error["code"], error["file"], error["line"]) == ("error", "recipe", str(recipe), 1)
    assert error["problems"][0]["key"] == "merge_method"


def test_methods_are_listed_with_their_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("opcm: ")
    assert lines[0].endswith("; arXiv:2501.09522 (hubmerge 0.1.0)")
    assert main(["methods", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(events) == len(lines)
    assert events[0]["event"] == "method"
    assert "alpha" in events[0]["parameters"]


def test_the_shell_is_given_completions() -> None:
    environment = {"_HUBMERGE_COMPLETE": "complete_bash", "COMP_WORDS": "hubmerge che", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "hubmerge"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin", "PYTHONPATH": ":".join(sys.path), "HOME": "/", **environment},
    )
    assert "check" in done.stdout.split()


def test_check_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", QUICKSTART]) == 0
    assert capsys.readouterr().out == f"{QUICKSTART}: OK: opcm, 8 checkpoints\n"
    assert main(["check", QUICKSTART, "--quiet"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--faults", "2"], "2 is not a fraction"), (["--throttle", "fast"], "fast is not a bandwidth")],
)
def test_settings_of_the_embedded_hub_are_checked(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["hub", "serve", *options]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "  hint: hubmerge hub serve --help\n" in shown


@pytest.mark.parametrize(
    ("file", "choice"),
    [("cache/hub/x", "HF_HOME"), ("other/x", "--work-dir or --out"), ("cached/x", "--work-dir or --out")],
)
def test_a_folder_that_cannot_be_used_has_the_name_of_its_choice(
    file: str, choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: merging.StepRun) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(tmp_path / file))

    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(merging.StepRun, "__iter__", fail)
    assert main(["run", QUICKSTART]) == 5
    assert f"hint: choose another {choice}, or repair" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--work-dir", "WORK"], ["--work-dir=WORK"]])
def test_a_full_disk_is_named(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: merging.StepRun) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(merging.StepRun, "__iter__", fail)
    assert main(["run", QUICKSTART, *words]) == 5
    assert "hubmerge: disk full: WORK (work folder), or the output folder\n" in capsys.readouterr().err


def test_an_interrupted_run_continues_next_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: merging.StepRun) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(merging.StepRun, "__iter__", interrupt)
    assert main(["run", QUICKSTART, "--json"]) == 130
    error = json.loads(capsys.readouterr().out)
    assert (error["code"], error["hint"]) == ("interrupted", "run the same command again to continue")


def test_an_interrupt_inside_a_serializer_is_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: merging.StepRun) -> None:
        raise ValueError("error calling the serializer") from KeyboardInterrupt()

    monkeypatch.setattr(merging.StepRun, "__iter__", interrupt)
    assert main(["run", QUICKSTART, "--json"]) == 130
    assert json.loads(capsys.readouterr().out)["code"] == "interrupted"
