"""Runs against a Hub with random failures: they succeed or fail clearly, and never publish part of a step."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hubmerge.hub import retry
from hubmerge.localhub import LocalHub, faults
from hubmerge.localhub.faults import Fault
from tests.reliability.conftest import RequestHook
from tests.reliability.target_checks import leftovers, published, steps_shown
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Quick = Callable[..., tuple[str, Path]]
Undisturbed = Callable[[int], dict[str, dict[str, str]]]


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    from huggingface_hub import constants

    from hubmerge.hub import fetch

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    fetch.list_files.cache_clear()
    return tmp_path / "cache"


@dataclass(frozen=True)
class Disturbance:
    """Failing requests of runs with an empty cache and shortened waits."""

    hub: LocalHub
    disturb: Callable[..., None]
    waits: list[float]
    cache: Path

    @contextmanager
    def requests(self, *arguments: Any) -> Iterator[None]:
        """Make requests fail during a block, and check that some did."""
        self.disturb(*arguments)
        yield
        drawn = self.hub.faults.drawn.total()
        self.disturb(0)
        assert drawn > 0


@pytest.fixture
def disturbance(
    local_hub: LocalHub, disturb: Callable[..., None], waits: list[float], empty_cache: Path
) -> Disturbance:
    return Disturbance(local_hub, disturb, waits, empty_cache)


@pytest.mark.parametrize("kinds", [tuple(Fault), *((kind,) for kind in Fault)], ids=lambda kinds: kinds[0].name)
def test_run_with_failing_requests(
    hubmerge: Command,
    quick: Quick,
    undisturbed: Undisturbed,
    disturbance: Disturbance,
    tmp_path: Path,
    kinds: tuple[Fault, ...],
) -> None:
    whole = undisturbed(2)
    repo, recipe = quick(2)
    with disturbance.requests(0.5 if kinds == (Fault.MOVED,) else 0.1, 7, kinds):
        status, output, errors = hubmerge("run", recipe, "--json")
    assert status in {0, 3}, output + errors
    assert "Traceback" not in output + errors
    steps_shown(repo)
    if status != 0:
        assert hubmerge("run", recipe, "--quiet")[0] == 0
    assert steps_shown(repo) == [1, 2]
    assert published(repo) == whole
    assert leftovers(tmp_path / "work", disturbance.cache) == []
    assert max(disturbance.waits, default=0) <= 1.25 * retry.LONGEST_WAIT_SECONDS


def test_evaluation_with_failing_requests(
    stage: Stage,
    hubmerge: Command,
    repo_name: Callable[..., str],
    disturbance: Disturbance,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    recipes = [stage.recipe(repo_name("scored"), entries=tuple(stage.towers)[:2]) for _ in range(2)]
    assert hubmerge("run", stage.write(tmp_path, recipes[0]), "--quiet")[0] == 0
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-again")
    with disturbance.requests(0.1, 3):
        status, output, errors = hubmerge("run", stage.write(tmp_path, recipes[1]), "--json")
    assert status in {0, 3}, output + errors
    if status != 0:
        assert hubmerge("run", stage.write(tmp_path, recipes[1]), "--quiet")[0] == 0
    first, second = (published(recipe["publish"]["repo"]) for recipe in recipes)
    assert second == first


def test_hub_that_stays_down_is_reported_in_bounded_time(
    hubmerge: Command, quick: Quick, disturb: Callable[..., None], waits: list[float]
) -> None:
    _, recipe = quick(2)
    disturb(1, 1, (Fault.BUSY,))
    status, _, errors = hubmerge("run", recipe)
    assert status == 3
    assert "503" in errors
    assert "Traceback" not in errors
    assert len(waits) == retry.RETRIES
    assert sum(waits) < 60


def test_requested_wait_is_respected(
    hubmerge: Command, quick: Quick, disturb: Callable[..., None], waits: list[float]
) -> None:
    _, recipe = quick(2)
    disturb(1, 1, (Fault.TOO_MANY,))
    status, _, errors = hubmerge("run", recipe)
    assert status == 3
    assert "rate limited (HTTP 429)" in errors
    assert waits == [1.5] * retry.RETRIES


def test_requested_wait_that_is_too_long(
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


@pytest.mark.usefixtures("disturb", "waits")
@pytest.mark.parametrize("what", ["state", "step"])
def test_lost_answer_to_a_commit(
    hubmerge: Command, quick: Quick, undisturbed: Undisturbed, request_hook: RequestHook, what: str
) -> None:
    """Find a commit that was made although its answer was lost, and do not make it twice."""
    whole = undisturbed(2)
    repo, recipe = quick(2)
    branch = {"state": "hubmerge-state", "step": "main"}[what]
    commit = f"POST /api/models/{repo}/commit/{branch}"
    request_hook.lose_answer(commit, number=2)
    status, output, errors = hubmerge("run", recipe, "--json")
    assert status == 0, output + errors
    assert len([request for request in request_hook.seen if request == commit]) == 3
    assert steps_shown(repo) == [1, 2]
    assert published(repo) == whole


@pytest.mark.parametrize("branch", ["main", "hubmerge-state"])
def test_commit_conflict_is_retried(
    hubmerge: Command,
    quick: Quick,
    undisturbed: Undisturbed,
    request_hook: RequestHook,
    waits: list[float],
    branch: str,
) -> None:
    whole = undisturbed(2)
    repo, recipe = quick(2)
    request_hook.refuse(f"POST /api/models/{repo}/commit/{branch}", status=409)
    status, output, errors = hubmerge("run", recipe, "--json")
    assert status == 0, output + errors
    assert len(waits) == 1
    assert published(repo) == whole


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("number", [1, 2])
def test_failures_right_after_a_commit(
    hubmerge: Command,
    quick: Quick,
    undisturbed: Undisturbed,
    request_hook: RequestHook,
    disturb: Callable[..., None],
    number: int,
) -> None:
    """Fail the requests that follow a successful commit."""
    whole = undisturbed(2)
    repo, recipe = quick(2)
    request_hook.set(f"POST /api/models/{repo}/commit/main", lambda: disturb(0.5, number, (Fault.BUSY,)), number)
    status, output, errors = hubmerge("run", recipe, "--json")
    disturb(0)
    assert status in {0, 3}, output + errors
    assert steps_shown(repo)[:1] == [1]
    if status != 0:
        assert hubmerge("run", recipe, "--quiet")[0] == 0
    assert published(repo) == whole


def test_other_writer_commits_to_the_target(
    hubmerge: Command, quick: Quick, undisturbed: Undisturbed, request_hook: RequestHook
) -> None:
    """Commit to the target right before the commit of the second step, which is then answered with 412."""
    from huggingface_hub import HfApi

    whole = undisturbed(2)
    repo, recipe = quick(2)

    def interfere() -> None:
        HfApi().upload_file(repo_id=repo, path_in_repo="LICENSE", path_or_fileobj=b"theirs")

    request_hook.set(f"POST /api/models/{repo}/commit/main", interfere, number=2)
    status, output, errors = hubmerge("run", recipe)
    assert status in {0, 3}, output + errors
    assert status == 0 or "changed during step" in errors
    if status != 0:
        assert hubmerge("run", recipe, "--quiet")[0] == 0
    found = published(repo)
    assert found["step-01"] == whole["step-01"]
    reports = [json.loads(steps["step-02"]["report"]) for steps in (found, whole)]
    assert list(reports[0].pop("kept_files")) == ["LICENSE"]
    assert reports[0] == {key: value for key, value in reports[1].items() if key != "kept_files"}
    others = {"LICENSE": None, "report": None}
    assert {**found["step-02"], **others} == {**whole["step-02"], **others}
