"""`hubmerge deploy hub-job`: its output, and its requests to a server with the Hub's jobs API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from hubmerge.automation.hub_job import SCRIPT
from tests.automation.conftest import Sources

Command = Callable[..., tuple[int, str, str]]
TOKEN = "hf_tokenofthejobtests"
OWNER = {"id": "1", "name": "me", "type": "user"}


class Jobs(BaseHTTPRequestHandler):
    """Handler that records requests and answers with the fields that the client reads."""

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: Any) -> None:
        hub: JobsHub = self.server  # type: ignore[assignment]
        if body is not None:
            hub.posts.append((self.path, body))
        known: dict[tuple[str, str], Any] = {
            ("GET", "/api/whoami-v2"): {"name": "me"},
            ("GET", "/api/scheduled-jobs/me"): hub.scheduled,
            ("POST", "/api/scheduled-jobs/me"): {"id": "scheduled-1", "owner": OWNER, "jobSpec": {}, "status": {}},
            ("POST", "/api/jobs/me"): {"id": "job-1", "owner": OWNER, "status": {"stage": "RUNNING"}},
            ("POST", "/api/settings/webhooks"): {
                "webhook": {"id": "hook-1", "watched": [], "domains": ["repo"], "disabled": False}
            },
            ("GET", "/api/organizations/team/overview"): {"name": "team"},
        }
        answer = known.get((self.command, self.path.partition("?")[0]))
        content = json.dumps(answer if answer is not None else {"error": "no such thing"}).encode()
        self.send_response(404 if answer is None else hub.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class JobsHub(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Jobs)
        self.posts: list[tuple[str, Any]] = []
        self.scheduled: list[Any] = []
        self.status = 200


@pytest.fixture
def jobs_hub() -> Iterator[JobsHub]:
    hub = JobsHub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    yield hub
    hub.shutdown()
    hub.server_close()
    thread.join()


@pytest.fixture
def deploy(jobs_hub: JobsHub, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Return a function that runs the command in a new process against the jobs server: exit status and output."""

    def run(recipe: dict[str, Any], *options: str) -> tuple[int, str]:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe))
        address = f"http://127.0.0.1:{jobs_hub.server_address[1]}"
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "hubmerge",
                "deploy",
                "hub-job",
                str(path),
                "--requirement",
                "hubmerge @ git+https://example.org/hubmerge@v1",
                *options,
            ],
            capture_output=True,
            text=True,
            env={**os.environ, "HF_ENDPOINT": address, "HF_TOKEN": TOKEN},
        )
        assert TOKEN not in done.stdout + done.stderr
        return done.returncode, done.stdout + done.stderr

    return run


RECIPE = {
    "merge_method": "opcm",
    "base_model": "me/base",
    "models": [{"model": "me/first"}, {"model": "you/second@v1"}],
    "publish": {"repo": "me/merged"},
}


def test_nothing_is_created_without_yes(deploy: Callable[..., tuple[int, str]], jobs_hub: JobsHub) -> None:
    status, output = deploy(RECIPE)
    assert status == 0
    assert "scheduled job on the Hub: @daily" in output
    assert "nothing was created" in output
    assert "install  hubmerge @ git+https://example.org/hubmerge@v1" in output
    assert jobs_hub.posts == []


def test_a_second_scheduled_job_is_refused(deploy: Callable[..., tuple[int, str]], jobs_hub: JobsHub) -> None:
    status, output = deploy(RECIPE, "--schedule", "0 4 * * *", "--flavor", "a10g-small", "--timeout", "2h", "--yes")
    assert status == 0, output
    assert "created job scheduled-1" in output
    ((path, body),) = jobs_hub.posts
    assert path == "/api/scheduled-jobs/me"
    assert (body["schedule"], body["concurrency"]) == ("0 4 * * *", False)
    job = body["jobSpec"]
    assert job["secrets"] == {"HF_TOKEN": TOKEN}
    assert TOKEN not in json.dumps(job["environment"]) + json.dumps(job["command"])
    assert job["environment"]["HUBMERGE_TARGET"] == "me/merged"
    assert yaml.safe_load(job["environment"]["HUBMERGE_RECIPE"]) == RECIPE
    assert (job["flavor"], job["timeoutSeconds"]) == ("a10g-small", 7200)

    jobs_hub.scheduled = [{"id": "scheduled-1", "owner": OWNER, "jobSpec": {"environment": job["environment"]}}]
    status, output = deploy(RECIPE, "--yes")
    assert status == 3
    assert "scheduled-1" in output
    assert len(jobs_hub.posts) == 1


def test_a_webhook_starts_the_job_when_a_source_changes(
    deploy: Callable[..., tuple[int, str]], jobs_hub: JobsHub
) -> None:
    models = [*RECIPE["models"], {"query": "team/vit-*"}, {"query": "she/vit-*"}]
    status, output = deploy({**RECIPE, "models": models}, "--on-update", "--yes", "--json")
    assert status == 0, output
    made = json.loads(output.splitlines()[-1])
    assert (made["job"], made["webhook"]) == ("job-1", "hook-1")
    (_, job), (_, webhook) = jobs_hub.posts
    assert webhook["jobSourceId"] == "job-1"
    assert webhook["secrets"] == job["secrets"] == {"HF_TOKEN": TOKEN}
    assert webhook["watched"] == [
        {"type": "model", "name": "me/first"},
        {"type": "model", "name": "you/second"},
        {"type": "org", "name": "team"},
        {"type": "user", "name": "she"},
    ]


def test_a_refused_job_is_an_error(deploy: Callable[..., tuple[int, str]], jobs_hub: JobsHub) -> None:
    jobs_hub.status = 403
    status, output = deploy(RECIPE, "--yes")
    assert status == 3
    assert "permission" in output
    assert jobs_hub.posts == []


@pytest.mark.parametrize(
    ("changes", "options", "status", "message"),
    [
        ({"publish": None}, (), 2, "publish"),
        ({"models": [{"model": "./mine"}]}, (), 2, "./mine is a local folder"),
        ({"publish": {"repo": "me/merged", "sign": "keyless"}}, (), 2, "hubmerge sign me/merged --key FILE"),
        ({"models": [{"collection": "me/all-0123"}]}, ("--on-update",), 2, "--schedule"),
        ({}, ("--schedule", "often"), 2, "not a schedule"),
        ({}, ("--timeout", "6"), 2, "not a time"),
    ],
)
def test_recipes_that_cannot_run_on_the_hub(
    hubmerge: Command, tmp_path: Path, changes: dict[str, Any], options: tuple[str, ...], status: int, message: str
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in {**RECIPE, **changes}.items() if value}))
    found, _, errors = hubmerge("deploy", "hub-job", path, "--requirement", "hubmerge==0", *options)
    assert found == status
    assert message in errors


def test_the_command_of_the_job_merges_changes(sources: Sources, tmp_path: Path) -> None:
    sources.push("first")
    installs = [line for line in SCRIPT.splitlines() if "pip install" in line]
    assert len(installs) == 3
    script = "\n".join(line for line in SCRIPT.splitlines() if line not in installs)
    folder = tmp_path / "job"
    folder.mkdir()
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HUBMERGE_REQUIREMENT": "hubmerge",
        "HUBMERGE_RECIPE": sources.recipe().read_text(),
    }
    for expected in ("step-01", "nothing changed"):
        done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
    assert sources.tags() == ["step-01"]
