"""An option that would have no effect is refused, with a way out; none is ignored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from hubmerge.cli.app import app
from tests.checks import every
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]

REFUSED: dict[str, tuple[str, list[str], str]] = {
    "init --oidc": ("init me/base me/a --oidc", ["--oidc", "without --github"], "add --github"),
    "init --every": ("init me/base me/a --every 17", ["--every", "without --github"], "add --github"),
    "init --requirement": ("init me/base me/a --requirement hubmerge", ["--requirement", "without"], "add --github"),
    "init --oidc --every": ("init me/base --oidc --every 17", ["--oidc, --every have no effect"], "add --github"),
    "init --out": ("init recipe.yaml --github --out other.yaml", ["--out", "with --github"], "remove --out"),
    "init --method": ("init recipe.yaml --github --method wudi", ["--method", "with --github"], "remove --method"),
    "init --publish": ("init recipe.yaml --github --publish me/x", ["--publish", "with --github"], "remove --publish"),
    "init --search": ("init recipe.yaml --github --search clip", ["--search", "with --github"], "remove --search"),
    "inspect --norms": ("inspect me/x --norms --leave-one-out", ["--norms", "--leave-one-out"], "remove --norms"),
    "inspect --work-dir": ("inspect me/x --work-dir x", ["--work-dir", "without"], "add --leave-one-out"),
    "hub serve --fault-seed": ("hub serve --fault-seed 1", ["--fault-seed", "without --faults"], "add --faults"),
    "run --verbose": ("run recipe.yaml --verbose --json", ["--verbose", "with --json"], "remove --verbose"),
    "plan --verbose": ("plan recipe.yaml --verbose --quiet", ["--verbose", "with --quiet"], "remove --verbose"),
    "run --every-step": ("run recipe.yaml --every-step", ["--every-step", "requires --out"], "add --out"),
    "run --state": ("run recipe.yaml --state", ["--state", "requires --out"], "add --out"),
    "combine --state": ("combine me/a me/b --into me/c --state", ["--state", "requires --out"], "add --out"),
    "combine --parts": ("combine me/a me/b --into me/c --parts 2", ["--parts", "--recipe"], ""),
    "combine --duplicates": (
        "combine me/a me/b --recipe recipe.yaml --duplicates subtract",
        ["--duplicates subtract", "with --recipe"],
        "remove --duplicates subtract",
    ),
    "verify --from-parts": ("verify me/x --quick --from-parts", ["--from-parts", "--quick"], "remove --quick"),
    "verify --key": ("verify me/x --key a.pub --identity b", ["by a key or by an identity"], "drop --key"),
    "verify --identity": ("verify me/x --identity b", ["identity", "provider"], "--identity-provider"),
    "verify --identity-provider": ("verify me/x --identity-provider b", ["identity", "provider"], "--identity NAME"),
    "read --parameter": ("read me/x --choose wudi -p scaling=1 --out x", ["either a method"], "--method NAME"),
    "read --method": ("read me/x --method wudi --choose iso_c --out x", ["either a method"], "--method NAME"),
    "read --on": ("read me/x --method wudi --on cats --out x", ["either a method"], "--method NAME"),
    "read --metric": ("read me/x --method wudi --metric f1 --out x", ["either a method"], "--method NAME"),
    "sign --key": (
        "sign me/x --key a.key --keyless",
        ["a key or with an identity"],
        "`hubmerge sign me/x --key FILE`, or in CI `hubmerge sign me/x --keyless`",
    ),
    "methods --quiet --json": ("methods --quiet --json", ["exclude each other"], ""),
    "deploy hub-job --schedule": ("deploy hub-job recipe.yaml --schedule @daily --on-update", ["exclude each"], ""),
}
"""Command lines with an option that would have no effect, what the message says, and what the hint begins with."""

ALWAYS = {
    "combine": {"--into", "--out", "--recipe", "--work-dir"},
    "demo": {"--root", "--namespace"},
    "deploy hub-job": {"--on-update", "--flavor", "--timeout", "--requirement", "--yes"},
    "diff": {"--limit"},
    "hub serve": {"--root", "--port", "--host", "--throttle", "--faults"},
    "init": {"--github", "--force"},
    "inspect": {"--leave-one-out"},
    "lock": {"--update"},
    "plan": set(),
    "read": {"--choose", "--out", "--work-dir"},
    "report": {"--out", "--leave-one-out"},
    "revoke": {"--only", "--work-dir"},
    "rollback": {"--to"},
    "run": {"--out", "--part", "--locked", "--replay", "--summary", "--work-dir"},
    "schema": {"--events"},
    "sign": {"--keyless"},
    "study": {"--out", "--cache"},
    "verify": {"--quick", "--work-dir"},
    "watch": {"--every", "--listen", "--work-dir"},
}
"""Options that act in every combination, or whose combinations other tests refuse."""


def leaves() -> dict[str, Any]:
    """Return all commands by their whole names."""
    found: dict[str, Any] = {}
    waiting: list[tuple[tuple[str, ...], Any]] = [((), get_command(app))]
    while waiting:
        path, command = waiting.pop()
        inner = getattr(command, "commands", {})
        waiting += [((*path, name), one) for name, one in inner.items()]
        if not inner:
            found[" ".join(path)] = command
    return found


@pytest.mark.parametrize("name", REFUSED)
def test_an_option_without_effect_is_refused(
    name: str, hubmerge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = {"merge_method": "wudi", "base_model": "me/base", "models": [{"model": "me/a"}]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    words, said, hint = REFUSED[name]
    status, output, errors = hubmerge(*words.split())
    assert status == 2, output + errors
    shown = (output + errors).replace("\\n", "\n")
    assert every(text in shown for text in said), shown
    assert hint in shown
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_every_option_is_judged() -> None:
    judged: dict[str, set[str]] = {name: set(flags) for name, flags in ALWAYS.items()}
    for case in REFUSED:
        command, _, flags = case.partition(" --")
        judged.setdefault(command, set()).update(f"--{flag}" for flag in flags.split(" --"))
    for name, command in leaves().items():
        options = {max(one.opts, key=len) for one in command.params if one.param_type_name == "option"}
        options -= {"--help", "--quiet", "--json"}
        assert options == judged.get(name, set()) - {"--quiet", "--json"}, name


def test_a_joint_merge_has_no_state_to_write(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    recipe = stage.recipe(None, entries=tuple(stage.towers)[:1], merge_method="slerp", evaluate=None)
    path = stage.write(tmp_path, {**recipe, "parameters": {"t": 0.5}})
    status, _, errors = hubmerge("run", path, "--out", tmp_path / "merged", "--state")
    assert status == 2
    assert "--state has no effect: slerp merges all models at once" in errors
    assert not (tmp_path / "merged").exists()


def test_parts_of_a_stream_that_was_not_combined(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Any
) -> None:
    target = repo_name("merged")
    recipe = stage.recipe(target, entries=tuple(stage.towers)[:1], merge_method="wudi", evaluate=None)
    assert hubmerge("run", stage.write(tmp_path, recipe))[0] == 0
    status, _, errors = hubmerge("verify", target, "--from-parts")
    assert status == 2
    assert f"{target}: --from-parts has no effect: the stream was not combined" in errors
