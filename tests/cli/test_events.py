"""Every line of `--json` follows the published schema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.main import get_command

from hubmerge.cli.app import app
from hubmerge.cli.events import EVENTS, events_schema
from tests.checks import every
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[2]
SCHEMA = events_schema()


def lines_of(output: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in output.splitlines()]
    validator = Draft202012Validator(SCHEMA)
    for line in found:
        problems = [error.message for error in validator.iter_errors(line)]
        assert not problems, (line, problems)
    return found


def events_of(output: str) -> set[str]:
    return {line["event"] for line in lines_of(output)}


def test_the_schema_is_one(hubmerge: Command) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    status, output, _ = hubmerge("schema", "--events")
    assert status == 0
    assert json.loads(output) == json.loads(json.dumps(SCHEMA))
    for bad in ({}, {"event": "other"}, {"event": "note"}, {"event": "finding", "subject": "x", "verdict": "maybe"}):
        assert list(Draft202012Validator(SCHEMA).iter_errors(bad)), bad


def test_a_stream_from_check_to_rollback(stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Any) -> None:
    repo = repo_name("merged")
    path = stage.write(tmp_path, stage.recipe(repo, merge_method="wudi"))
    (checked,) = (line for line in lines_of(hubmerge("check", path, "--json")[1]) if line["event"] == "checked")
    assert (checked["valid"], checked["merge_method"], checked["checkpoints"]) == (True, "wudi", 3)
    assert "plan" in events_of(hubmerge("plan", path, "--json")[1])
    assert "lock" in events_of(hubmerge("lock", path, "--json")[1])
    done = lines_of(hubmerge("run", path, "--json")[1])[-1]
    assert (done["steps"], done["of"]) == (3, 3)
    assert set(done["links"]) == {"repo", "step", "card", "report"}
    assert done["links"]["step"].endswith(f"{repo}/tree/step-03")
    assert f"hubmerge verify {repo}" in [one["command"] for one in done["next"]]
    scores = done["scores"]
    assert scores["average"] == pytest.approx(sum(scores["rows"]["3"].values()) / len(scores["tasks"]))
    assert "outdated" in events_of(hubmerge("outdated", path, "--json")[1])
    assert lines_of(hubmerge("verify", repo, "--quick", "--json")[1])[-1]["event"] == "done"
    assert "inspection" in events_of(hubmerge("inspect", repo, "--json")[1])
    assert "diff" in events_of(hubmerge("diff", repo, f"{repo}@step-01", "--json")[1])
    work = ("--work-dir", str(tmp_path / "other"))
    revoked = lines_of(hubmerge("revoke", repo, [*stage.towers][1], *work, "--json")[1])
    assert [line["steps"] for line in revoked if line["event"] == "done"] == [1]
    assert lines_of(hubmerge("read", repo, "--method", "iso_c", "--out", tmp_path / "iso", "--json")[1])
    assert lines_of(hubmerge("report", repo, "--out", tmp_path / "report.html", "--json")[1])
    assert lines_of(hubmerge("rollback", repo, "--to", "step-02", "--json")[1])[-1]["step"] == 2


def test_errors_and_other_commands(hubmerge: Command, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("merge_method: opcn\nbase_model: a/b\nmodels: [{model: a/c}]\n")
    status, output, _ = hubmerge("check", bad, "--json")
    (error,) = lines_of(output)
    assert (status, error["event"], error["exit_code"]) == (2, "error", 2)
    assert error["problems"]
    assert [line["event"] for line in lines_of(hubmerge("check", tmp_path, "--json")[1])] == ["checked", "summary"]
    methods = lines_of(hubmerge("methods", "--json")[1])
    assert {line["name"] for line in methods} >= {"opcm", "wudi", "slerp"}
    forms = lines_of(hubmerge("methods", "ties", "--json")[1])
    assert [(line["name"], line["form"]) for line in forms] == [("ties", "stream"), ("ties", "joint")]
    assert forms == [line for line in methods if line["name"] == "ties"]


def commands_with_json() -> set[str]:
    """Return the names of all commands that have --json."""
    found: set[str] = set()
    waiting: list[tuple[tuple[str, ...], Any]] = [((), get_command(app))]
    while waiting:
        path, command = waiting.pop()
        waiting += [((*path, name), one) for name, one in getattr(command, "commands", {}).items()]
        if any("--json" in parameter.opts for parameter in command.params):
            found.add(" ".join(path))
    return found


FAILING = {
    "check": (["missing.yaml"], 2, {"file": "missing.yaml"}),
    "plan": (["missing.yaml"], 2, {"file": "missing.yaml"}),
    "run": (["missing.yaml"], 2, {"file": "missing.yaml"}),
    "lock": (["missing.yaml"], 2, {"file": "missing.yaml"}),
    "outdated": (["missing.yaml"], 2, {"file": "missing.yaml"}),
    "watch": (["missing.yaml", "--every", "10m"], 2, {"file": "missing.yaml"}),
    "study": (["missing.yaml"], 2, {"file": "missing.yaml"}),
    "deploy hub-job": (["missing.yaml"], 2, {"file": "missing.yaml"}),
    "init": (["missing/base"], 2, {}),
    "methods": (["missing"], 2, {}),
    "read": (["local/missing", "--method", "wudi", "--out", "out"], 3, {"repo": "local/missing"}),
    "verify": (["local/missing"], 3, {"repo": "local/missing"}),
    "report": (["local/missing"], 3, {"repo": "local/missing"}),
    "inspect": (["local/missing"], 3, {"repo": "local/missing"}),
    "diff": (["local/missing", "local/missing"], 3, {"repo": "local/missing"}),
    "revoke": (["local/missing", "one"], 3, {"repo": "local/missing"}),
    "rollback": (["local/missing", "--to", "1"], 3, {"repo": "local/missing"}),
    "combine": (["local/missing", "local/missing-2", "--into", "local/x"], 3, {"repo": "local/missing"}),
    "sign": (["local/missing", "--key", "missing.key"], 2, {"file": "missing.key"}),
}
"""Arguments of each command that fail, the exit status, and the fields of the error."""

WITHOUT_ERRORS = {"demo"}


@pytest.mark.parametrize("name", sorted(FAILING))
def test_the_last_line_of_a_command_that_fails_is_an_error_with_its_place(
    name: str, hubmerge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, expected, place = FAILING[name]
    command, *more = name.split()
    status, output, errors = hubmerge(command, *more, *arguments, "--json")
    line = lines_of(output)[-1]
    assert (status, line["event"], line["exit_code"], errors) == (expected, "error", expected, "")
    assert line["code"]
    assert place.items() <= line.items()


def test_every_command_with_json_is_tried() -> None:
    assert commands_with_json() == FAILING.keys() | WITHOUT_ERRORS


def test_every_event_in_the_code_is_in_the_schema_and_in_the_docs() -> None:
    named = {name for event in EVENTS for name in event.model_fields["event"].annotation.__args__}  # type: ignore[union-attr]
    used = set()
    for path in (ROOT / "hubmerge").rglob("*.py"):
        used |= set(re.findall(r"""\.event\(\s*["']([\w-]+)["']""", path.read_text(encoding="utf-8")))
    assert used | {"error"} == named
    page = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    assert every(f"`{name}`" in page for name in named)
