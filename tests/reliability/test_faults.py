"""A Hub that fails now and then: a run ends well or with a clear error, and never publishes half or wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hubmerge.hub import retry
from hubmerge.localhub import LocalHub, faults
from hubmerge.localhub.faults import Fault
from tests.reliability.conftest import Tripwire
from tests.reliability.wholeness import leftovers, published, steps_shown
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
    assert max(waits, default=0) <= 1.25 * retry.LONGEST_WAIT_SECONDS


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
    assert len(waits) == retry.RETRIES
    assert sum(waits) < 60


def test_the_wait_that_the_hub_asks_for_is_kept(
    hubmerge: Command, quick: Quick, disturb: Callable[..., None], waits: list[float]
) -> None:
    _, recipe = quick(2)
    disturb(1, 1, (Fault.TOO_MANY,))
    status, _, errors = hubmerge("run", recipe)
    assert status == 3
    assert "rate limited (HTTP 429)" in errors
    assert waits == [1.5] * retry.RETRIES


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
    assert status == 0 or "changed during step" in errors
    if status != 0:
        assert hubmerge("run", recipe, "--quiet")[0] == 0
    found = published(repo)
    assert found["step-01"] == whole["step-01"]
    assert {**found["step-02"], "LICENSE": None} == {**whole["step-02"], "LICENSE": None}
