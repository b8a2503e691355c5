"""Every line of `--json` follows the published schema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from hubmerge.cli.events import EVENTS, events_schema
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


def test_every_event_in_the_code_is_in_the_schema_and_in_the_docs() -> None:
    named = {name for event in EVENTS for name in event.model_fields["event"].annotation.__args__}  # type: ignore[union-attr]
    used = set()
    for path in (ROOT / "hubmerge").rglob("*.py"):
        used |= set(re.findall(r"""\.event\(\s*["']([\w-]+)["']""", path.read_text(encoding="utf-8")))
    assert used | {"error"} == named
    page = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in named)
