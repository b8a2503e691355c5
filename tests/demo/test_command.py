"""Tests of pushing a stream, the quickstart recipe and the demo command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from datasets import load_dataset
from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile
from transformers import CLIPModel, CLIPVisionModel

from hubmerge.demo import quickstart_recipe
from hubmerge.demo.command import _embedded_hub, _run
from hubmerge.demo.make_stream import make_tiny_repos
from hubmerge.demo.seed import seed_hub
from hubmerge.demo.stream import DemoStream
from hubmerge.demo.tasks import DEMO_TASKS
from hubmerge.errors import HubError, HubmergeError
from hubmerge.localhub import LocalHub
from merge_recipes import load_recipe
from tests.checks import every


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> DemoStream:
    return make_tiny_repos(tmp_path_factory.mktemp("stream"), tasks=["waves"])


def test_pushed_repos_load_from_the_hub(stream: DemoStream) -> None:
    seed_hub(stream, lambda _: None)
    CLIPModel.from_pretrained("hubmerge-demo/tiny-clip")
    CLIPVisionModel.from_pretrained("hubmerge-demo/tiny-clip_waves")
    table = load_dataset("hubmerge-demo/waves", split="test")
    assert table.features["label"].names == list(stream.tasks[0].class_names)
    assert len(table) == stream.settings.test_images


def test_a_second_push_makes_no_commit(stream: DemoStream, tmp_path: Path) -> None:
    lines: list[str] = []
    with LocalHub(tmp_path / "hub") as hub:
        assert seed_hub(stream, lines.append, endpoint=hub.endpoint, token=hub.token) == 3
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        commits = {repo.repo: len(api.list_repo_commits(repo.repo, repo_type=repo.kind)) for repo in stream.repos()}
        assert seed_hub(stream, lines.append, endpoint=hub.endpoint, token=hub.token) == 0
        again = {repo.repo: len(api.list_repo_commits(repo.repo, repo_type=repo.kind)) for repo in stream.repos()}
    assert commits == again
    assert lines[-1] == "pushed 0 repos, 3 were already there"


def test_missing_and_changed_files_are_pushed_again(stream: DemoStream, tmp_path: Path) -> None:
    with LocalHub(tmp_path / "hub") as hub:
        seed_hub(stream, lambda _: None, endpoint=hub.endpoint, token=hub.token)
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        tower = stream.tower("waves")
        api.delete_file("model.safetensors", tower.repo)
        api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id=stream.base.repo)
        assert seed_hub(stream, lambda _: None, endpoint=hub.endpoint, token=hub.token) == 2
        assert api.file_exists(tower.repo, "model.safetensors")
        sizes = {file.path: file.size for file in api.list_repo_tree(stream.base.repo) if isinstance(file, RepoFile)}
    assert sizes["config.json"] == (stream.base.folder / "config.json").stat().st_size


def test_an_invalid_token_is_reported(stream: DemoStream, tmp_path: Path) -> None:
    with LocalHub(tmp_path / "hub") as hub, pytest.raises(HubError, match="hubmerge-demo/tiny-clip"):
        seed_hub(stream, lambda _: None, endpoint=hub.endpoint, token="hf_nobody")


def test_the_quickstart_recipe_names_the_repos_of_the_stream() -> None:
    path = quickstart_recipe()
    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=schema.json\n")
    recipe = load_recipe(path).recipe
    names = [task.name for task in DEMO_TASKS]
    assert [entry.name for entry in recipe.entries] == names
    assert [str(entry.model) for entry in recipe.entries] == [f"hubmerge-demo/tiny-clip_{name}" for name in names]
    assert recipe.evaluate is not None
    for task, drawn in zip(recipe.evaluate.tasks, DEMO_TASKS, strict=True):
        assert task.name == drawn.name
        assert task.dataset.path == f"hubmerge-demo/{drawn.name}"
        assert list(task.prompts) == [drawn.prompt]
    assert recipe.publish is not None
    assert recipe.publish.repo == "hubmerge-demo/tiny-clip-8-tasks"


def test_the_quickstart_recipe_has_no_other_namespace() -> None:
    """Check the condition for replacing the namespace in the text."""
    recipe = yaml.safe_load(quickstart_recipe().read_text(encoding="utf-8"))
    repos = [recipe["base_model"], recipe["publish"]["repo"], *(entry["model"] for entry in recipe["models"])]
    repos += [task["dataset"]["path"] for task in recipe["evaluate"]["tasks"]]
    assert every(repo.startswith("hubmerge-demo/") for repo in repos)


def test_the_embedded_hub_reuses_its_port_if_it_is_free(tmp_path: Path) -> None:
    with _embedded_hub(tmp_path) as hub:
        first = hub.endpoint
    with _embedded_hub(tmp_path) as hub:
        assert hub.endpoint == first
    with LocalHub(tmp_path / "other", port=int(first.rpartition(":")[2])), _embedded_hub(tmp_path) as hub:
        assert hub.endpoint != first


def test_a_failed_run_determines_the_exit_status() -> None:
    with pytest.raises(HubmergeError, match="status 4") as caught:
        _run([sys.executable, "-c", "raise SystemExit(4)"])
    assert caught.value.exit_code == 4


@pytest.mark.slow
def test_the_demo_runs_twice_on_a_given_hub(tmp_path: Path) -> None:
    root = tmp_path / "root"
    command = [sys.executable, "-m", "hubmerge", "demo", "--root", str(root)]
    with LocalHub(tmp_path / "hub") as hub:
        endpoint = hub.endpoint
        settings = {"HF_ENDPOINT": endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "home")}
        first = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=True)
        second = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=True)
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        tags = {tag.name for tag in api.list_repo_refs("hubmerge-demo/tiny-clip-8-tasks").tags}
    steps = [f"step-{number:02d}" for number in range(1, 9)]
    assert tags == set(steps)
    for output in (first.stdout, second.stdout):
        for step in steps:
            assert f"{endpoint}/hubmerge-demo/tiny-clip-8-tasks/tree/{step}" in output
        assert "average accuracy" in output
    assert "reusing the complete stream" in second.stdout
    assert not (root / "hub").exists(), "an embedded Hub was started"
