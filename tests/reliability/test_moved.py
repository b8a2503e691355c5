"""Changes on the Hub during a run: target deleted, source force-pushed, token revoked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from hubmerge.localhub import LocalHub
from tests.reliability.conftest import RequestHook
from tests.reliability.target_checks import published, steps_shown
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Quick = Callable[..., tuple[str, Path]]
Undisturbed = Callable[[int], dict[str, dict[str, str]]]


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    from hubmerge.hub import fetch

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    fetch.list_files.cache_clear()


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("POST /api/models/{target}/commit/hubmerge-state", 2),
        ("POST /api/models/{target}/commit/main", 1),
        ("POST /api/models/{target}/commit/main", 2),
        ("POST /api/models/{target}/tag/", 2),
        ("POST /api/models/{target}/super-squash/", 1),
    ],
)
def test_target_is_deleted(
    hubmerge: Command, quick: Quick, undisturbed: Undisturbed, request_hook: RequestHook, moment: str, number: int
) -> None:
    whole = undisturbed(3)
    repo, recipe = quick(3)
    request_hook.set(moment.format(target=repo), lambda: HfApi().delete_repo(repo), number)
    status, _, errors = hubmerge("run", recipe)
    assert status == 3, errors
    assert repo in errors
    assert "no repo of this name" in errors
    assert "Traceback" not in errors
    assert not HfApi().repo_exists(repo)
    assert hubmerge("run", recipe, "--quiet")[0] == 0
    assert steps_shown(repo) == [1, 2, 3]
    assert published(repo) == whole


@pytest.fixture
def copied_tower(stage: Stage, repo_name: Callable[..., str]) -> str:
    """Create a source repo with the weights of the second tower, and return its name."""
    repo = repo_name("source")
    HfApi().create_repo(repo)
    HfApi().upload_folder(repo_id=repo, folder_path=stage.folder / "towers" / list(stage.towers)[1])
    return repo


def force_push(repo: str) -> None:
    """Replace the history of a repo by one commit with other weights."""
    api = HfApi()
    api.upload_file(repo_id=repo, path_in_repo="model.safetensors", path_or_fileobj=b"other")
    api.super_squash_history(repo)


def recipe_over(stage: Stage, repo: str, source: str) -> dict[str, Any]:
    models = [{"model": model, "name": name} for name, model in stage.towers.items()]
    models[1]["model"] = source
    return stage.recipe(repo, models=models, evaluate=None)


@pytest.mark.parametrize("moment", ["GET /{source}/resolve/", "POST /api/models/{target}/commit/main"])
def test_force_pushed_source_with_its_locked_commit_still_served(
    stage: Stage,
    hubmerge: Command,
    undisturbed: Undisturbed,
    request_hook: RequestHook,
    copied_tower: str,
    tmp_path: Path,
    repo_name: Callable[..., str],
    moment: str,
) -> None:
    whole = undisturbed(3)
    repo = repo_name("target")
    recipe = stage.write(tmp_path, recipe_over(stage, repo, copied_tower))
    request_hook.set(moment.format(source=copied_tower, target=repo), lambda: force_push(copied_tower))
    status, _, errors = hubmerge("run", recipe)
    assert status == 0, errors
    assert steps_shown(repo) == [1, 2, 3]
    found = published(repo)
    assert [files["model.safetensors"] for files in found.values()] == [
        files["model.safetensors"] for files in whole.values()
    ]


def test_steps_before_a_source_that_cannot_be_fetched_are_kept(
    stage: Stage, hubmerge: Command, request_hook: RequestHook, tmp_path: Path, repo_name: Callable[..., str]
) -> None:
    """Keep the steps of a batch before the checkpoint that cannot be fetched."""
    repos = [repo_name("target") for _ in range(2)]
    (tmp_path / "whole").mkdir()
    whole, recipe = (
        stage.write(folder, stage.recipe(repo, evaluate=None, publish={"repo": repo, "steps": "last", "state": "none"}))
        for folder, repo in zip((tmp_path / "whole", tmp_path), repos, strict=True)
    )
    last = list(stage.towers.values())[-1]
    # The header is read first, then the weights.
    request_hook.refuse(f"GET /{last}/resolve/.*model.safetensors", number=2)
    status, _, errors = hubmerge("run", recipe)
    assert status == 3
    assert last in errors
    [state] = tmp_path.glob("work/*/states/*/state.json")
    assert json.loads(state.read_text())["step"] == 2
    status, output, errors = hubmerge("run", recipe)
    assert status == 0, errors
    assert "step 3: merge" in output
    assert "step 1" not in output
    assert hubmerge("run", whole, "--work-dir", tmp_path / "other")[0] == 0
    assert published(repos[0]) == published(repos[1])


def test_force_pushed_source_with_its_locked_commit_gone(
    stage: Stage,
    hubmerge: Command,
    request_hook: RequestHook,
    local_hub: LocalHub,
    copied_tower: str,
    tmp_path: Path,
    repo_name: Callable[..., str],
) -> None:
    repo, commit = repo_name("target"), HfApi().model_info(copied_tower).sha
    recipe = stage.write(tmp_path, recipe_over(stage, repo, copied_tower))

    def force_push_and_clean_up() -> None:
        force_push(copied_tower)
        (local_hub.site.root / "repos" / "models" / copied_tower / "commits" / str(commit)).unlink()

    request_hook.set(f"GET /{copied_tower}/resolve/", force_push_and_clean_up)
    for _ in range(2):
        status, _, errors = hubmerge("run", recipe)
        assert status == 3
        assert copied_tower in errors
        assert str(commit) in errors
        assert "the commit no longer exists" in errors
    assert set(steps_shown(repo)) <= {1}


@pytest.mark.parametrize(
    "moment",
    [
        "GET /api/models/hubmerge-demo/[^/]+/tree/",
        "GET /hubmerge-demo/[^/]+/resolve/",
        "POST /api/repos/create",
        "POST /api/models/{target}/preupload/",
        "POST /api/models/{target}/commit/main",
        "POST /api/models/{target}/tag/",
    ],
)
def test_token_expires(
    hubmerge: Command,
    quick: Quick,
    undisturbed: Undisturbed,
    request_hook: RequestHook,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    whole = undisturbed(2)
    repo, recipe = quick(2)
    expired = "hf_" + "expired" * 5
    with monkeypatch.context() as patch:
        request_hook.set(moment.format(target=repo), lambda: patch.setenv("HF_TOKEN", expired))
        status, _, errors = hubmerge("run", recipe)
    assert status == 3, errors
    assert "the Hub rejected the token" in errors
    assert "expired" in errors
    assert expired not in errors
    assert set(steps_shown(repo)) <= {1}
    assert hubmerge("run", recipe, "--quiet")[0] == 0
    assert published(repo) == whole


def test_target_and_work_folder_are_deleted(
    hubmerge: Command, quick: Quick, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Merge everything again after target repo and work folder were deleted."""
    whole = undisturbed(2)
    repo, recipe = quick(2)
    assert hubmerge("run", recipe, "--quiet")[0] == 0
    HfApi().delete_repo(repo)
    shutil.rmtree(tmp_path / "work")
    assert hubmerge("run", recipe, "--quiet")[0] == 0
    assert published(repo) == whole


@pytest.mark.parametrize("number", [1, 2])
def test_no_step_is_published_before_the_previous_one(
    hubmerge: Command, quick: Quick, undisturbed: Undisturbed, request_hook: RequestHook, number: int
) -> None:
    """Refuse one commit only: later steps must not be published before it."""
    whole = undisturbed(3)
    repo, recipe = quick(3)
    request_hook.refuse(f"POST /api/models/{repo}/commit/main", number)
    status, _, errors = hubmerge("run", recipe)
    assert status == 3, errors
    assert "no permission" in errors
    assert steps_shown(repo) == list(range(1, number))
    assert hubmerge("run", recipe, "--quiet")[0] == 0
    assert steps_shown(repo) == [1, 2, 3]
    assert published(repo) == whole
