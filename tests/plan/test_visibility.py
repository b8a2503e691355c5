"""Warnings about a merged model that more people can read than its inputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from hubmerge.hub.publish import read_target
from hubmerge.hub.visibility import repo_visibility
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Change = Callable[..., None]


@pytest.fixture
def change(stage: Stage) -> Iterator[Change]:
    """Return a function that changes who can read a repo of the stream; afterwards everybody can again."""
    changed: list[tuple[str, str]] = []

    def set_visibility(repo: str, *, kind: str = "model", **settings: Any) -> None:
        HfApi().update_repo_settings(repo, repo_type=kind, **settings)
        changed.append((repo, kind))

    yield set_visibility
    for repo, kind in changed:
        HfApi().update_repo_settings(repo, repo_type=kind, private=False, gated=False)


def warnings_of(output: str) -> list[str]:
    """Return the warnings of the event `plan` about visibility."""
    (plan,) = [event for line in output.splitlines() if (event := json.loads(line))["event"] == "plan"]
    return [text for text in plan["warnings"] if "fewer people" in text or "no effect" in text]


def test_a_new_public_repo_for_private_inputs(
    stage: Stage, hubmerge: Command, change: Change, repo_name: Callable[..., str], tmp_path: Path
) -> None:
    repo, names = repo_name("merged"), list(stage.towers)
    path = stage.write(tmp_path, stage.recipe(repo))
    assert warnings_of(hubmerge("plan", path, "--json")[1]) == []
    change(stage.base, private=True)
    change(stage.towers[names[1]], gated="manual")
    change(stage.datasets[names[2]], kind="dataset", private=True)
    status, output, errors = hubmerge("plan", path, "--json")
    assert status == 0, errors
    sentence = (
        f"{repo} will be public, and fewer people can read these inputs: {stage.base} (private), "
        f"{stage.towers[names[1]]} (gated), {stage.datasets[names[2]]} (private data set); "
        f"write `publish: {{repo: {repo}, private: true}}`, unless their owners agree"
    )
    assert warnings_of(output) == [sentence]
    assert f"warning  {sentence}" in hubmerge("plan", path, "--verbose")[1].splitlines()
    status, output, errors = hubmerge("run", path)
    assert status == 0, errors
    assert f"warning: {sentence}" in output.splitlines()
    # All inputs are published now.
    stage.write(tmp_path, stage.recipe(repo, merge_method="opcm"))
    assert warnings_of(hubmerge("plan", path, "--json")[1]) == []


def test_a_private_recipe_has_no_warning(
    stage: Stage, hubmerge: Command, change: Change, repo_name: Callable[..., str], tmp_path: Path
) -> None:
    change(stage.base, private=True)
    recipe = stage.recipe(repo_name("merged"))
    recipe["publish"]["private"] = True
    status, output, errors = hubmerge("plan", stage.write(tmp_path, recipe), "--json")
    assert status == 0, errors
    assert warnings_of(output) == []


def test_the_visibility_of_a_repo_that_exists_counts(
    stage: Stage, hubmerge: Command, change: Change, repo_name: Callable[..., str], tmp_path: Path
) -> None:
    repo, [first, *_] = repo_name("merged"), stage.towers.values()
    HfApi().create_repo(repo)
    change(stage.base, private=True)
    change(first, gated="auto")
    recipe = stage.recipe(repo)
    recipe["publish"]["private"] = True
    path = stage.write(tmp_path, recipe)
    settings = f"{HfApi().endpoint}/{repo}/settings"
    inputs, hint = "fewer people can read these inputs", f"make it private in {settings}, unless their owners agree"
    assert warnings_of(hubmerge("plan", path, "--json")[1]) == [
        f"`private: true` has no effect: {repo} exists and is public; change it in {settings}",
        f"{repo} is public, and {inputs}: {stage.base} (private), {first} (gated); {hint}",
    ]
    HfApi().update_repo_settings(repo, gated="manual")
    assert warnings_of(hubmerge("plan", path, "--json")[1])[1:] == [
        f"{repo} is gated, and {inputs}: {stage.base} (private); {hint}",
    ]
    HfApi().update_repo_settings(repo, private=True)
    recipe["publish"]["private"] = False
    status, output, _ = hubmerge("plan", stage.write(tmp_path, recipe), "--json")
    assert (status, warnings_of(output)) == (0, [])
    (plan,) = [event for line in output.splitlines() if (event := json.loads(line))["event"] == "plan"]
    assert plan["publish"]["private"] is True


def test_visibility_of_repos(stage: Stage, change: Change, repo_name: Callable[..., str]) -> None:
    assert repo_visibility("model", stage.base) == "public"
    change(stage.base, gated="auto")
    assert repo_visibility("model", stage.base) == "gated"
    change(stage.base, private=True)
    assert repo_visibility("model", stage.base) == "private"
    assert repo_visibility("dataset", repo_name("nowhere")) is None
    repo = repo_name("merged")
    HfApi().create_repo(repo, private=True)
    assert read_target(repo).visibility == "private"
