"""Fixtures that disturb a run at a chosen request, and results to compare with."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from hubmerge.localhub import LocalHub, faults
from hubmerge.localhub.faults import HalfAnswer
from hubmerge.support import interrupts
from tests.stage import Stage

__all__ = ["RequestHook"]


class RequestHook:
    """Middleware that runs an action once, before the Hub answers a chosen request.

    Attributes:
        seen: All requests since the action was set, as "GET /api/models/...".
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.seen: list[str] = []
        self._action: Callable[[], object] | None = None
        self._loses, self._refusal = False, 0
        self._answer: tuple[bytes, dict[str, str]] = (b"", {})

    def set(self, pattern: str, action: Callable[[], object], number: int = 1) -> None:
        """Run `action` before the `number`-th request that starts with a regular expression is answered."""
        self.seen.clear()
        self._pattern, self._action, self._left = pattern, action, number
        self._loses, self._refusal = False, 0

    def lose_answer(self, pattern: str, number: int = 1) -> None:
        """Process the request, and close the connection before the answer."""
        self.set(pattern, lambda: None, number)
        self._loses = True

    def refuse(
        self,
        pattern: str,
        number: int = 1,
        status: int = 403,
        *,
        body: bytes = b'{"error": "Not now"}',
        headers: dict[str, str] | None = None,
    ) -> None:
        """Answer the request with an error status, without processing it."""
        self.set(pattern, lambda: None, number)
        self._refusal = status
        self._answer = (body, {"content-type": "application/json", **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, after the action if it is the chosen one."""
        request = f"{scope['method']} {scope['path']}"
        self.seen.append(request)
        if self._action is not None and re.match(self._pattern, request):
            self._left -= 1
            if self._left == 0:
                action, self._action = self._action, None
                await asyncio.to_thread(action)
                if self._refusal:
                    body, headers = self._answer
                    await Response(body, self._refusal, headers)(scope, receive, send)
                    return
                if self._loses:
                    send = HalfAnswer(send, honest=True)
        await self._app(scope, receive, send)


@pytest.fixture
def request_hook(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> RequestHook:
    """Return the hook of the embedded Hub for one test."""
    wire = RequestHook(local_hub.faults.app)
    monkeypatch.setattr(local_hub.faults, "app", wire)
    return wire


@pytest.fixture
def disturb(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that makes requests fail: `disturb(rate, seed, kinds)`; `disturb(0)` ends it."""
    logger = logging.getLogger("uvicorn.error")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    monkeypatch.setattr(faults, "SLOW_SECONDS", (0.01, 0.1))
    yield local_hub.faults.set
    local_hub.faults.set(0)
    logger.setLevel(level)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record every sleep in seconds, and sleep a hundredth of it."""
    recorded: list[float] = []
    sleep = time.sleep

    def short_sleep(seconds: float) -> None:
        recorded.append(seconds)
        sleep(seconds / 100)

    monkeypatch.setattr(time, "sleep", short_sleep)
    monkeypatch.setattr(interrupts, "wait", short_sleep)
    return recorded


@pytest.fixture(scope="session")
def undisturbed(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, dict[str, str]]]:
    """Return a function that gives the published files of an undisturbed run over a number of entries."""
    from hubmerge.cli.main import main
    from tests.reliability.target_checks import published  # imports the client, which reads the endpoint of the Hub

    known: dict[int, dict[str, dict[str, str]]] = {}

    def result(entries: int) -> dict[str, dict[str, str]]:
        if entries not in known:
            folder, repo = tmp_path_factory.mktemp("undisturbed"), f"local/undisturbed-{entries}"
            path = stage.write(folder, quick_recipe(stage, repo, entries))
            assert main(["run", str(path), "--quiet", "--work-dir", str(folder / "work")]) == 0
            known[entries] = published(repo)
        return known[entries]

    return result


def quick_recipe(stage: Stage, repo: str | None, entries: int) -> dict[str, Any]:
    """Return a recipe over the first entries of the stream, without evaluation."""
    return stage.recipe(repo, entries=tuple(stage.towers)[:entries], evaluate=None)


@pytest.fixture
def quick(stage: Stage, tmp_path: Path, repo_name: Callable[..., str]) -> Callable[..., tuple[str, Path]]:
    """Return a function that writes a recipe over `n` entries and returns target repo and path: `quick(2)`."""
    from hubmerge.hub import fetch

    def write(entries: int) -> tuple[str, Path]:
        fetch.list_files.cache_clear()
        repo = repo_name("target")
        return repo, stage.write(tmp_path, quick_recipe(stage, repo, entries))

    return write
