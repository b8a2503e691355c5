"""`hubmerge watch` checks the Hub, merges changes, listens to webhooks, and stops on SIGTERM."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer import BadParameter

from hubmerge.automation.watch import Watcher
from hubmerge.cli.commands.watch import parse_address, parse_duration
from hubmerge.support.progress import SilentProgress
from tests.automation.conftest import Sources
from tests.checks import every

SECRET = "a-secret-of-the-tests"
STOPPING = "stopping after the current tensor; press again to stop now\n"
Start = Callable[..., "Watching"]


class Notes(SilentProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def test_a_watcher_merges_changes(sources: Sources, tmp_path: Path) -> None:
    sources.push("first")
    notes = Notes()
    watcher = Watcher(sources.recipe(on_update="append"), tmp_path / "work", notes)
    watcher.check()
    watcher.check()
    assert "1 change: merged step 1" in notes.lines[0]
    assert notes.lines[1].endswith("nothing changed")
    sources.push("first", 1)
    sources.push("second", 2)
    watcher.check()
    assert "2 changes: merged step 2" in notes.lines[2]
    assert sources.tags() == ["step-01", "step-02", "step-03"]
    assert every("\n" not in line for line in notes.lines)


def test_changes_without_effect_are_run_once(sources: Sources, tmp_path: Path) -> None:
    sources.push("first")
    notes = Notes()
    watcher = Watcher(sources.recipe(), tmp_path / "work", notes)
    watcher.check()
    sources.push("first", 1)
    watcher.check()
    watcher.check()
    assert notes.lines[1].endswith("1 change: nothing to merge")
    assert notes.lines[2].endswith("nothing new (1 change as before)")


def test_waits_grow_after_failures(sources: Sources, tmp_path: Path) -> None:
    notes = Notes()
    watcher = Watcher(sources.recipe([{"model": sources.repo("gone")}]), tmp_path / "work", notes)
    assert watcher.wait_seconds(60) == 60
    waits = []
    for _ in range(3):
        watcher.check()
        waits.append(watcher.wait_seconds(60))
    assert notes.lines[2].split(" ", 1)[1].startswith("failed (3 in a row): model")
    assert 100 < waits[0] < waits[1] < waits[2] < 530
    watcher.failures = 99
    assert watcher.wait_seconds(60) < 4000
    assert watcher.wait_seconds(9000) > 8000
    sources.push("gone")
    watcher.check()
    assert watcher.wait_seconds(60) == 60


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("1d", 86400)])
def test_times(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["10", "m", "-1m", "0s", "1w", "", "1e3s"])
def test_invalid_times(text: str) -> None:
    with pytest.raises(BadParameter, match="is not a time"):
        parse_duration(text)


def test_addresses() -> None:
    assert parse_address("8080") == ("127.0.0.1", 8080)
    assert parse_address("0.0.0.0:0") == ("0.0.0.0", 0)  # noqa: S104 - read, not listened on
    for text in ("", "host:", "host:http", "99999"):
        with pytest.raises(BadParameter):
            parse_address(text)


class Watching:
    """A watcher in another process, and its events."""

    def __init__(self, errors: Path, *arguments: str | Path, **environment: str) -> None:
        self._errors = errors
        with errors.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hubmerge", "watch", *map(str, arguments), "--json"],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, **environment},
            )
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._events.put(json.loads(line))

    def next(self, name: str) -> dict[str, Any]:
        while True:
            try:
                event = self._events.get(timeout=180)
            except queue.Empty:
                raise AssertionError(f"no {name}: {self.process.poll()} {self._errors.read_text()}") from None
            if event["event"] == name:
                return event

    def checks(self) -> int:
        return sum(event["event"] == "check" for event in list(self._events.queue))

    def stop(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60), self._errors.read_text()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Watching] = []

    def make(*arguments: str | Path, **environment: str) -> Watching:
        started.append(Watching(tmp_path / f"errors-{len(started)}.txt", *arguments, **environment))
        return started[-1]

    yield make
    for watching in started:
        if watching.process.poll() is None:
            watching.process.kill()
            watching.process.wait()


def post(url: str, body: bytes, secret: str | None) -> int:
    headers = {"Content-Type": "application/json"} | ({} if secret is None else {"X-Webhook-Secret": secret})
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_webhook_starts_a_run(sources: Sources, start: Start, tmp_path: Path) -> None:
    sources.push("first")
    recipe = sources.recipe(on_update="append")
    arguments = (recipe, "--listen", "0", "--work-dir", tmp_path / "work")
    watching = start(*arguments, HUBMERGE_WEBHOOK_SECRET=SECRET)
    url = watching.next("listening")["address"]
    assert url.startswith("http://127.0.0.1:")
    assert watching.next("check")["steps"] == 1

    sources.push("first", 1)
    payload = {"event": {"action": "update", "scope": "repo.content"}, "webhook": {"id": "1", "version": 3}}
    body = json.dumps({**payload, "repo": {"type": "model", "name": sources.repo("first")}}).encode()
    for wrong in (None, "", SECRET + "x", SECRET[:-1], "\u00e9"):
        assert post(url, body, wrong) == 401
    assert post(url, b"x" * (2 << 20), SECRET) == 413
    assert watching.checks() == 0
    assert [post(url, body, SECRET) for _ in range(5)] == [202] * 5
    check = watching.next("check")
    assert check["steps"] == 1, check
    assert sources.tags() == ["step-01", "step-02"]
    status, errors = watching.stop()
    assert (status, errors) == (0, STOPPING)
    assert watching.checks() == 0, "five messages are one look"
    assert SECRET not in json.dumps(check)


def test_a_watcher_checks_again_and_stops_at_once(sources: Sources, start: Start, tmp_path: Path) -> None:
    sources.push("first")
    watching = start(sources.recipe(), "--every", "0.2s", "--work-dir", tmp_path / "work")
    assert watching.next("check")["steps"] == 1
    assert watching.next("check")["told"] == "nothing changed"
    assert watching.next("check")["told"] == "nothing changed"
    assert watching.stop() == (0, STOPPING)
    watching.next("stopped")


def test_listening_needs_a_secret_and_a_port(sources: Sources, start: Start) -> None:
    recipe = sources.recipe()
    watching = start(recipe, "--listen", "0", HUBMERGE_WEBHOOK_SECRET="")
    assert "HUBMERGE_WEBHOOK_SECRET" in watching.next("error")["hint"]
    watching = start(recipe, "--listen", "0", HUBMERGE_WEBHOOK_SECRET=15 * "s")
    error = watching.next("error")
    assert "has 15 characters: expected at least 16" in error["message"]
    assert 15 * "s" not in json.dumps(error)
    assert watching.process.wait(60) == 5
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        watching = start(recipe, "--listen", port, HUBMERGE_WEBHOOK_SECRET=SECRET)
        assert port in watching.next("error")["message"]
        assert watching.process.wait(60) == 5


def test_an_invalid_recipe_is_an_error_at_the_start(start: Start, tmp_path: Path) -> None:
    watching = start(tmp_path / "none.yaml", "--every", "1h")
    assert "the file does not exist" in watching.next("error")["message"]
    assert watching.process.wait(60) == 2
