"""A run that is disturbed at a moment of one's choice, and what must be true afterwards."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from hubmerge.localhub import LocalHub, faults
from hubmerge.localhub.faults import HalfAnswer
from tests.reliability.forge import Forge
from tests.stage import Stage

__all__ = ["Tripwire"]


class Tripwire:
    """Does something, once, at the moment when the Hub receives the `number`-th request of a kind.

    The request is answered when it is done. `seen` are all requests since the wire was set: "GET /api/models/...".
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.seen: list[str] = []
        self._action: Callable[[], object] | None = None
        self._loses, self._refusal = False, 0

    def set(self, pattern: str, action: Callable[[], object], number: int = 1) -> None:
        """Wait for requests that begin as the regular expression says."""
        self.seen.clear()
        self._pattern, self._action, self._left = pattern, action, number
        self._loses, self._refusal = False, 0

    def lose_answer(self, pattern: str, number: int = 1) -> None:
        """Let the request be carried out, and end the connection before its answer."""
        self.set(pattern, lambda: None, number)
        self._loses = True

    def refuse(self, pattern: str, number: int = 1, status: int = 403) -> None:
        """Answer the one request with a status, and carry it out not."""
        self.set(pattern, lambda: None, number)
        self._refusal = status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, after the action if it is the one."""
        request = f"{scope['method']} {scope['path']}"
        self.seen.append(request)
        if self._action is not None and re.match(self._pattern, request):
            self._left -= 1
            if self._left == 0:
                action, self._action = self._action, None
                await asyncio.to_thread(action)
                if self._refusal:
                    await JSONResponse({"error": "Not now"}, self._refusal)(scope, receive, send)
                    return
                if self._loses:
                    send = HalfAnswer(send, honest=True)
        await self._app(scope, receive, send)


@pytest.fixture
def tripwire(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> Tripwire:
    """Stretched across the Hub's door for the length of a test."""
    wire = Tripwire(local_hub.faults.app)
    monkeypatch.setattr(local_hub.faults, "app", wire)
    return wire


@pytest.fixture
def disturb(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """`disturb(rate, seed, kinds)` lets requests fail until the end of the test or `disturb(0)`."""
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
    return recorded


@pytest.fixture(scope="session")
def forge() -> Iterator[Forge]:
    """Runs in processes of their own."""
    with Forge({"HF_ENDPOINT": os.environ["HF_ENDPOINT"]}) as forge:
        yield forge


@pytest.fixture(scope="session")
def undisturbed(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, dict[str, str]]]:
    """What a run of so many entries, without evaluation, publishes when nothing happens."""
    from hubmerge.cli.main import main
    from tests.reliability.wholeness import published  # a client, and the Hub must be up before it is imported

    known: dict[int, dict[str, dict[str, str]]] = {}

    def result(entries: int) -> dict[str, dict[str, str]]:
        if entries not in known:
            folder, repo = tmp_path_factory.mktemp("undisturbed"), f"local/undisturbed-{entries}"
            path = stage.write(folder, quick_recipe(stage, repo, entries))
            assert main(["run", str(path), "--quiet", "--work-dir", str(folder / "work")]) == 0
            known[entries] = published(repo)
        return known[entries]

    return result


def quick_recipe(stage: Stage, repo: str | None, entries: int) -> dict[str, object]:
    """A recipe over the first entries of the stream, without evaluation."""
    return stage.recipe(repo, entries=tuple(stage.towers)[:entries], evaluate=None)


@pytest.fixture
def quick(stage: Stage, tmp_path: Path, repo_name: Callable[..., str]) -> Callable[..., tuple[str, Path]]:
    """`quick(2)` writes such a recipe and returns the repo it publishes to and the recipe's path."""
    from hubmerge.hub import fetch

    def write(entries: int) -> tuple[str, Path]:
        fetch.list_files.cache_clear()
        repo = repo_name("target")
        return repo, stage.write(tmp_path, quick_recipe(stage, repo, entries))

    return write
