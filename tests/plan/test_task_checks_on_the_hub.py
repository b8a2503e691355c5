"""Datasets of the Hub that a plan checks: mistakes, access, and what the cache answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from hubmerge.errors import DatasetError
from hubmerge.hub.dataset_preview import preview_dataset
from hubmerge.hub.datasets import load_rows
from merge_recipes import DatasetReference
from tests.conftest import STRANGER_TOKEN
from tests.plan.planned_tasks import LABEL, planned, write
from tests.stage import Stage

__all__ = ["planned"]  # fixtures


@pytest.fixture
def published(repo_name: Callable[..., str], tmp_path: Path) -> Iterator[str]:
    """Publish a dataset with the subsets `small` and `large`, and return the repo."""
    repo, folder = repo_name("things"), tmp_path / "published"
    write(folder, LABEL, [0, 1, 1, 0])
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: small\n  data_files: [{split: test, path: test.parquet}]\n"
        "- config_name: large\n  data_files: [{split: test, path: test.parquet}]\n---\n"
    )
    HfApi().create_repo(repo, repo_type="dataset")
    HfApi().upload_folder(repo_id=repo, repo_type="dataset", folder_path=folder)
    yield repo
    HfApi().delete_repo(repo, repo_type="dataset")


def test_mistakes_in_datasets_of_the_hub(
    published: str, repo_name: Callable[..., str], tmp_path: Path, planned: Callable[..., Any]
) -> None:
    script, bare = repo_name("script"), repo_name("bare")
    for repo, name in ((script, f"{script.partition('/')[2]}.py"), (bare, "notes.xyz")):
        HfApi().create_repo(repo, repo_type="dataset")
        HfApi().upload_file(path_or_fileobj=b"x = 1\n", path_in_repo=name, repo_id=repo, repo_type="dataset")
    found = (
        ({"path": published}, "name", "several subsets and the recipe names none; expected one of: small, large"),
        ({"path": published, "name": "smal"}, "name", "no subset 'smal'; did you mean small?"),
        ({"path": published, "name": "small", "split": "train"}, "split", "no split 'train'; expected one of: test"),
        ({"path": script}, "path", "consists of a script"),
        ({"path": bare}, "path", "no data files of a known format"),
    )
    status, errors, _ = planned(*({"dataset": dataset} for dataset, _, _ in found))
    assert status == 3
    for number, (_, key, message) in enumerate(found):
        assert any(f"tasks[{number}].dataset.{key}: " in line and message in line for line in errors.splitlines()), (
            errors
        )
    # A repo or a revision that does not exist is reported together with the mistakes of the other tasks.
    wrong = [
        {"path": "local/nowhere"},
        {"path": published, "revision": "v9"},
        {"path": published, "name": "large", "label": "x"},
    ]
    status, errors, _ = planned(*({"dataset": dataset} for dataset in wrong))
    assert status == 2
    assert "tasks[0].dataset.path: dataset local/nowhere at revision main: no repo of this name" in errors
    assert "tasks[1].dataset.revision: " in errors
    assert "tasks[2].dataset.label: " in errors


def test_access_is_checked_although_the_preview_is_remembered(published: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = DatasetReference(path=published, name="small")
    commit = str(HfApi().dataset_info(published).sha)
    assert preview_dataset(source, commit).rows == 4
    HfApi().update_repo_settings(published, repo_type="dataset", gated="manual")
    token = HfApi().token
    monkeypatch.setenv("HF_TOKEN", STRANGER_TOKEN)
    with pytest.raises(DatasetError, match="gated"):
        preview_dataset(source, commit)
    monkeypatch.undo()
    assert HfApi().token == token
    HfApi().update_repo_settings(published, repo_type="dataset", gated=False, private=True)
    monkeypatch.setenv("HF_TOKEN", STRANGER_TOKEN)
    with pytest.raises(DatasetError, match="no repo of this name"):
        preview_dataset(source, commit)


def test_a_second_plan_asks_for_access_alone(
    published: str, stage: Stage, tmp_path: Path, planned: Callable[..., Any], request_hook: Any
) -> None:
    dataset = {"path": published, "name": "small"}
    assert planned({"dataset": dataset})[0] == 0
    request_hook.seen.clear()
    assert planned({"dataset": dataset})[0] == 0
    asked = [request for request in request_hook.seen if published in request]
    # The commit of main, because no lock pins it, and the access.
    assert asked == [f"GET /api/datasets/{published}", f"GET /api/datasets/{published}/auth-check"]


def test_a_full_cache_is_enough_without_the_hub(
    published: str, stage: Stage, monkeypatch: pytest.MonkeyPatch, empty_cache: None
) -> None:
    source, commit = DatasetReference(path=published, name="small"), str(HfApi().dataset_info(published).sha)
    load_rows(source, commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    offline = preview_dataset(source, commit)
    assert (offline.rows, offline.labels, offline.columns["label"].names) == (4, [0, 1], ["a", "b"])
    with pytest.raises(DatasetError):
        preview_dataset(DatasetReference(path=published, name="large"), commit)
    monkeypatch.undo()
    assert preview_dataset(source, commit) == offline
