"""A Hub that fails now and then: a run ends well or with a clear error, and never publishes half or wrong."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hubmerge.hub import client
from hubmerge.localhub import LocalHub, faults
from hubmerge.localhub.faults import Fault
from tests.reliability.conftest import Tripwire
from tests.reliability.wholeness import leftovers, published, steps_shown
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Quick = Callable[..., tuple[str, Path]]
Undisturbed = Callable[[int], dict[str, dict[str, str]]]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long a run would have slept, in seconds; it sleeps a hundredth of that."""
    told: list[float] = []
    sleep = time.sleep

    def short_sleep(seconds: float) -> None:
        told.append(seconds)
        sleep(seconds / 100)

    monkeypatch.setattr(time, "sleep", short_sleep)
    return told


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    from huggingface_hub import constants

    from hubmerge.hub import fetch

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    fetch.list_files.cache_clear()
    return tmp_path / "cache"


@pytest.mark.parametrize("kinds", [tuple(Fault), *((kind,) for kind in Fault)], ids=lambda kinds: kinds[0].name)
def test_a_run_while_requests_fail(
    hubmerge: Command,
    quick: Quick,
    undisturbed: Undisturbed,
    local_hub: LocalHub,
    disturb: Callable[..., None],
    waits: list[float],
    empty_cache: Path,
    tmp_path: Path,
    kinds: tuple[Fault, ...],
) -> None:
    whole = undisturbed(2)
    repo, recipe = quick(2)
    disturb(0.5 if kinds == (Fault.MOVED,) else 0.1, 7, kinds)
    status, output, errors = hubmerge("run", recipe, "--json")
    drawn = local_hub.faults.drawn.total()
    disturb(0)
    assert drawn > 0
    assert status in {0, 3}, output + errors
    assert "Traceback" not in output + errors
    steps_shown(repo)
    if status != 0:
        assert hubmerge("run", recipe, "--quiet")[0] == 0
    assert steps_shown(repo) == [1, 2]
    assert published(repo) == whole
    assert leftovers(tmp_path / "work", empty_cache) == []
    assert max(waits, default=0) <= 1.25 * client.LONGEST_WAIT_SECONDS


def test_tasks_are_prepared_and_scored_while_requests_fail(
    stage: Stage,
    hubmerge: Command,
    repo_name: Callable[..., str],
    local_hub: LocalHub,
    disturb: Callable[..., None],
    waits: list[float],
    empty_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    recipes = [stage.recipe(repo_name("scored"), entries=tuple(stage.towers)[:2]) for _ in range(2)]
    assert hubmerge("run", stage.write(tmp_path, recipes[0]), "--quiet")[0] == 0
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-again")
    disturb(0.1, 3)
    status, output, errors = hubmerge("run", stage.write(tmp_path, recipes[1]), "--json")
    drawn = local_hub.faults.drawn.total()
    disturb(0)
    assert drawn > 0
    assert status in {0, 3}, output + errors
    if status != 0:
        assert hubmerge("run", stage.write(tmp_path, recipes[1]), "--quiet")[0] == 0
    first, second = (published(recipe["publish"]["repo"]) for recipe in recipes)
    assert second == first


def test_a_hub_that_stays_down_is_told_in_bounded_time(
    hubmerge: Command, quick: Quick, disturb: Callable[..., None], waits: list[float]
) -> None:
    _, recipe = quick(2)
    disturb(1, 1, (Fault.BUSY,))
    status, _, errors = hubmerge("run", recipe)
    assert status == 3
    assert "503" in errors
    assert "Traceback" not in errors
    assert len(waits) == client.RETRIES
    assert sum(waits) < 60


def test_the_wait_that_the_hub_asks_for_is_kept(
    hubmerge: Command, quick: Quick, disturb: Callable[..., None], waits: list[float]
) -> None:
    _, recipe = quick(2)
    disturb(1, 1, (Fault.TOO_MANY,))
    status, _, errors = hubmerge("run", recipe)
    assert status == 3
    assert "limits the rate of calls" in errors
    assert waits == [1.5] * client.RETRIES


def test_a_hub_that_asks_for_too_long_a_wait(
    hubmerge: Command,
    quick: Quick,
    disturb: Callable[..., None],
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faults, "RETRY_AFTER_SECONDS", 3600)
    _, recipe = quick(2)
    disturb(1, 1, (Fault.TOO_MANY,))
    status, _, errors = hubmerge("run", recipe)
    assert status == 3
    assert "run again in 3600 seconds" in errors
    assert waits == []


def test_both_ways_of_asking_for_a_wait() -> None:
    from huggingface_hub.errors import HfHubHTTPError

    http = importlib.import_module(client.TRANSPORT_ERROR.__module__.partition(".")[0])

    def asked(**headers: str) -> float | None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = http.Response(429, headers=named, request=http.Request("GET", "http://there"))
        return client.asked_seconds(HfHubHTTPError("429", response=response))

    assert asked(Retry_After="7") == 7
    assert asked(RateLimit='"api";r=0;t=55') == 55
    assert asked(RateLimit='"api";r=12;t=55') is None
    assert asked(Retry_After="Wed, 21 Oct 2026 07:28:00 GMT") is None
    assert asked() is None


@pytest.mark.parametrize("what", ["state", "step"])
def test_an_answer_that_got_lost(
    hubmerge: Command,
    quick: Quick,
    undisturbed: Undisturbed,
    tripwire: Tripwire,
    disturb: Callable[..., None],
    waits: list[float],
    what: str,
) -> None:
    """The commit is made, but the run does not hear of it: it must find out, and not make it twice."""
    whole = undisturbed(2)
    repo, recipe = quick(2)
    branch = {"state": "hubmerge-state", "step": "main"}[what]
    commit = f"POST /api/models/{repo}/commit/{branch}"
    tripwire.lose_answer(commit, number=2)
    status, output, errors = hubmerge("run", recipe, "--json")
    assert status == 0, output + errors
    assert len([request for request in tripwire.seen if request == commit]) == 3
    assert steps_shown(repo) == [1, 2]
    assert published(repo) == whole


@pytest.mark.parametrize("branch", ["main", "hubmerge-state"])
def test_the_hub_is_busy_with_another_commit(
    hubmerge: Command, quick: Quick, undisturbed: Undisturbed, tripwire: Tripwire, waits: list[float], branch: str
) -> None:
    whole = undisturbed(2)
    repo, recipe = quick(2)
    tripwire.refuse(f"POST /api/models/{repo}/commit/{branch}", status=409)
    status, output, errors = hubmerge("run", recipe, "--json")
    assert status == 0, output + errors
    assert len(waits) == 1
    assert published(repo) == whole


@pytest.mark.parametrize("number", [1, 2])
def test_faults_right_after_a_commit(
    hubmerge: Command,
    quick: Quick,
    undisturbed: Undisturbed,
    tripwire: Tripwire,
    disturb: Callable[..., None],
    waits: list[float],
    number: int,
) -> None:
    """The commit is made and its answer arrives; what the run asks next fails for a while."""
    whole = undisturbed(2)
    repo, recipe = quick(2)
    tripwire.set(f"POST /api/models/{repo}/commit/main", lambda: disturb(0.5, number, (Fault.BUSY,)), number)
    status, output, errors = hubmerge("run", recipe, "--json")
    disturb(0)
    assert status in {0, 3}, output + errors
    assert steps_shown(repo)[:1] == [1]
    if status != 0:
        assert hubmerge("run", recipe, "--quiet")[0] == 0
    assert published(repo) == whole


def test_somebody_else_commits_to_the_target(
    hubmerge: Command, quick: Quick, undisturbed: Undisturbed, tripwire: Tripwire
) -> None:
    """Answered with 412, at the moment of the second step's commit."""
    from huggingface_hub import HfApi

    whole = undisturbed(2)
    repo, recipe = quick(2)

    def interfere() -> None:
        HfApi().upload_file(repo_id=repo, path_in_repo="LICENSE", path_or_fileobj=b"theirs")

    tripwire.set(f"POST /api/models/{repo}/commit/main", interfere, number=2)
    status, output, errors = hubmerge("run", recipe)
    assert status in {0, 3}, output + errors
    assert status == 0 or "moved" in errors
    if status != 0:
        assert hubmerge("run", recipe, "--quiet")[0] == 0
    found = published(repo)
    assert found["step-01"] == whole["step-01"]
    assert {**found["step-02"], "LICENSE": None} == {**whole["step-02"], "LICENSE": None}


def test_every_call_gets_the_same_chances(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a library wraps around a fault of the network, it counts as one; a fault of the disk never does."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    from hubmerge.errors import HubError, MachineError

    def wrapped(inner: Exception, outer: Exception) -> Any:
        def function() -> None:
            calls.append(1)
            try:
                raise inner
            except Exception as error:
                raise outer from error

        return function

    for outer in (FileNotFoundError("no data files"), LocalEntryNotFoundError("not in the cache"), RuntimeError("x")):
        calls: list[int] = []
        slept: list[float] = []
        with pytest.raises(HubError, match=r"the thing: .* reset"):
            client.call("the thing", wrapped(ConnectionResetError("reset"), outer), sleep=slept.append)
        assert len(calls) == client.RETRIES + 1
        assert slept == sorted(slept)
        assert 20 < sum(slept) < 40
    calls = []
    with monkeypatch.context() as patch:
        patch.setattr(client, "PATIENCE_SECONDS", -1.0)
        with pytest.raises(HubError):
            client.call("the thing", wrapped(ConnectionResetError("reset"), RuntimeError("x")))
    assert len(calls) == 1
    for number, name in ((28, None), (30, "/there/file"), (13, "/there/file")):
        calls = []
        with pytest.raises(MachineError, match="cannot be written"):
            client.call("the thing", wrapped(OSError(number, "no", name), ConnectionResetError("reset")))
        assert len(calls) == 1
    with pytest.raises(KeyError):
        client.call("the thing", wrapped(ValueError("mine"), KeyError("mine")))
