"""`hubmerge lock`, `hubmerge outdated` and `run --locked` over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi, hf_hub_download, snapshot_download

from merge_recipes import Lock
from tests.automation.conftest import Sources
from tests.checks import every
from tests.conftest import STRANGER_TOKEN

Command = Callable[..., tuple[int, str, str]]


def changes(hubmerge: Command, recipe: Path) -> tuple[int, list[tuple[str, str]]]:
    """Return the exit status of `outdated`, and kind and name of each change."""
    status, output, errors = hubmerge("outdated", recipe, "--json")
    events = [json.loads(line) for line in output.splitlines()]
    told = [event for event in events if event["event"] == "outdated"]
    assert len(told) == 1, errors
    assert told[0]["outdated"] is (status == 10)
    return status, [(one["change"], one["name"]) for one in told[0]["news"]]


def test_a_query_is_locked_in_the_order_of_creation(sources: Sources, hubmerge: Command) -> None:
    commits = {name: sources.push(name) for name in ("z", "b", "a")}
    recipe = sources.recipe()
    status, output, errors = hubmerge("lock", recipe)
    assert status == 0, errors
    path = recipe.with_name("recipe.lock.yaml")
    assert str(path) in output
    lock = Lock.from_yaml(path.read_text())
    assert [model.commit for model in lock.models] == [commits[name] for name in ("z", "b", "a")]
    assert lock.versions["hubmerge"]
    before = path.read_bytes()
    sources.push("c")
    sources.push("z", 1)
    assert "OK: opcm, 1 query" in hubmerge("check", recipe)[1]
    assert hubmerge("lock", recipe)[0] == 0
    again = Lock.from_yaml(path.read_text())
    assert again.models[:3] == lock.models
    assert again.models[3].reference.path == sources.repo("c")
    assert path.read_bytes() != before
    assert hubmerge("lock", recipe, "--update")[0] == 0
    updated = Lock.from_yaml(path.read_text())
    assert updated.models[0].commit == HfApi().model_info(sources.repo("z")).sha != lock.models[0].commit


def test_tags_and_collections_select_models(sources: Sources, hubmerge: Command) -> None:
    api = HfApi()
    for name, tag in (("one", "wanted"), ("two", "other"), ("three", "wanted")):
        sources.push(name)
        card = f"---\ntags: [{tag}]\n---\n".encode()
        api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=sources.repo(name))
    slug = api.create_collection(sources.prefix, exists_ok=True).slug
    for name in ("three", "two"):
        api.add_collection_item(slug, sources.repo(name), "model")

    def locked(*models: dict[str, Any]) -> list[str]:
        recipe = sources.recipe(list(models))
        recipe.with_name("recipe.lock.yaml").unlink(missing_ok=True)
        status, _, errors = hubmerge("lock", recipe)
        assert status == 0, errors
        lock = Lock.from_yaml(recipe.with_name("recipe.lock.yaml").read_text())
        return [model.reference.path.removeprefix(sources.prefix + "-") for model in lock.models]

    query = {"query": f"{sources.prefix}-*"}
    assert locked({**query, "tags": ["wanted"]}) == ["one", "three"]
    assert locked({"collection": slug}) == ["two", "three"]
    assert locked({"collection": slug}, query) == ["two", "three", "one"]
    assert locked({"query": f"{sources.prefix}-t*"}) == ["two", "three"]


def test_a_query_that_finds_nothing_is_an_error(sources: Sources, hubmerge: Command) -> None:
    status, _, errors = hubmerge("lock", sources.recipe())
    assert status == 3
    assert "the queries find no model" in errors
    status, _, errors = hubmerge("lock", sources.recipe([{"collection": "local/gone-0123456789abcdef01234567"}]))
    assert status == 3
    assert "local/gone-0123456789abcdef01234567" in errors


def test_changes_are_listed_and_merged(sources: Sources, hubmerge: Command, tmp_path: Path) -> None:
    sources.push("first", 0)
    recipe = sources.recipe(scored=True, on_update="append")
    name, second = sources.name("first"), sources.name("second")
    for _ in range(2):
        assert changes(hubmerge, recipe) == (10, [("new entry", name)])
    assert hubmerge("run", recipe)[0] == 0
    assert changes(hubmerge, recipe) == (0, [])
    assert "nothing changed" in hubmerge("outdated", recipe)[1]

    sources.push("second", 1)
    newest = sources.push("first", 2)
    assert changes(hubmerge, recipe) == (10, [("new commit", name), ("new entry", second)])
    table = hubmerge("outdated", recipe)[1]
    assert newest[:12] in table
    assert "adds a step at the end" in table

    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    status, _, errors = hubmerge("run", recipe, "--summary", summary)
    assert status == 0, errors
    assert sources.titles() == [f"step-03: merge {name}-2", f"step-02: merge {second}", f"step-01: merge {name}"]
    assert sources.tags() == ["step-01", "step-02", "step-03"]
    lock = Lock.from_yaml(Path(hf_hub_download(sources.target, "hubmerge.lock.yaml")).read_text())
    assert lock.models[2].commit == newest
    report = json.loads(Path(hf_hub_download(sources.target, "hubmerge.json")).read_text())
    assert every(set(step["scores"]) == {"first"} for step in report["steps"])
    text = summary.read_text()
    assert text.startswith("before\n## 2 new steps")
    assert f"{sources.target}/tree/step-03" in text
    assert "| step | first | average |" in text
    assert text.count("\n| ") >= 4

    assert changes(hubmerge, recipe) == (0, [])
    assert "nothing to do" in hubmerge("run", recipe)[1]
    assert len(sources.titles()) == 3


def test_ignored_updates_are_listed(sources: Sources, hubmerge: Command) -> None:
    sources.push("first", 0)
    recipe = sources.recipe([{"model": sources.repo("first"), "name": "first"}])
    assert hubmerge("run", recipe)[0] == 0
    sources.push("first", 1)
    assert changes(hubmerge, recipe) == (10, [("new commit", "first")])
    assert changes(hubmerge, recipe) == (0, [("new commit", "first")])
    assert "on_update: ignore" in hubmerge("outdated", recipe)[1]
    assert "nothing to do" in hubmerge("run", recipe)[1]


def test_changes_of_base_model_and_dataset_are_listed(sources: Sources, hubmerge: Command) -> None:
    api, stage = HfApi(), sources.stage
    base, dataset = f"{sources.prefix}.base", f"{sources.prefix}.data"
    api.create_repo(base)
    api.upload_folder(repo_id=base, folder_path=snapshot_download(stage.base))
    api.create_repo(dataset, repo_type="dataset")
    api.upload_file(repo_id=dataset, repo_type="dataset", path_in_repo="a.csv", path_or_fileobj=b"x\n1\n")
    sources.push("first")
    task = {"name": "first", "kind": "zero-shot-image-classification", "dataset": {"path": dataset}}
    models = [{"model": sources.repo("first"), "name": "first"}]
    recipe = sources.recipe(models, base_model=base, publish=None)
    recipe.write_text(recipe.read_text() + yaml.safe_dump({"evaluate": {"tasks": [task]}}))
    assert hubmerge("lock", recipe)[0] == 0
    assert changes(hubmerge, recipe) == (0, [])
    api.upload_file(repo_id=base, path_in_repo="NOTES", path_or_fileobj=b"new")
    api.upload_file(repo_id=dataset, repo_type="dataset", path_in_repo="b.csv", path_or_fileobj=b"x\n2\n")
    status, found = changes(hubmerge, recipe)
    assert (status, [change for change, _ in found]) == (10, ["new commit", "new commit"])
    assert changes(hubmerge, recipe) == (0, found)
    api.upload_file(repo_id=base, path_in_repo="NOTES", path_or_fileobj=b"newer")
    assert changes(hubmerge, recipe) == (10, found)
    assert hubmerge("outdated", recipe)[1].count("none: the stream keeps its pinned commit") == 2
    api.delete_repo(dataset, repo_type="dataset")
    assert ("deleted", "first") in changes(hubmerge, recipe)[1]


def test_changes_of_the_models_of_stages_are_listed(sources: Sources, hubmerge: Command, tmp_path: Path) -> None:
    for name in ("first", "second", "third"):
        sources.push(name)
    first, second, third = (sources.repo(name) for name in ("first", "second", "third"))
    sums: dict[str, Any] = {"merge_method": "task_arithmetic", "form": "joint", "base_model": sources.stage.base}
    sums |= {"parameters": {"weight": 0.5}}
    inner = {"name": "pair", **sums, "models": [{"model": first}, {"model": second}]}
    outer = {**sums, "models": [{"model": "pair"}, {"model": third}]}
    recipe = tmp_path / "stages.yaml"
    recipe.write_text(yaml.safe_dump_all([inner, outer], sort_keys=False), encoding="utf-8")
    assert changes(hubmerge, recipe)[0] == 10  # nothing is locked
    assert hubmerge("lock", recipe)[0] == 0
    assert changes(hubmerge, recipe) == (0, [])
    sources.push("second", 1)
    name = f"{sources.name('second')} of pair"
    assert changes(hubmerge, recipe) == (10, [("new commit", name)])
    assert changes(hubmerge, recipe) == (0, [("new commit", name)])
    assert "none: the stream keeps its pinned commit" in hubmerge("outdated", recipe)[1]
    HfApi().delete_repo(first)
    assert ("deleted", f"{sources.name('first')} of pair") in changes(hubmerge, recipe)[1]


def test_deleted_and_gated_sources_are_listed(
    sources: Sources,
    hubmerge: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("first", "second", "third"):
        sources.push(name)
    models = [{"model": sources.repo(name), "name": name} for name in ("first", "second", "third")]
    recipe = sources.recipe(models, publish=None)
    assert hubmerge("lock", recipe)[0] == 0
    HfApi().delete_repo(sources.repo("second"))
    HfApi().update_repo_settings(sources.repo("third"), gated="manual")
    assert changes(hubmerge, recipe) == (10, [("deleted", "second")])
    monkeypatch.setenv("HF_TOKEN", STRANGER_TOKEN)
    assert changes(hubmerge, recipe) == (10, [("deleted", "second"), ("gated", "third")])


def test_missing_steps_are_listed(sources: Sources, hubmerge: Command) -> None:
    sources.push("first")
    sources.push("second", 1)
    recipe = sources.recipe()
    assert hubmerge("lock", recipe)[0] == 0
    names = [sources.name(name) for name in ("first", "second")]
    assert changes(hubmerge, recipe) == (10, [("not merged yet", name) for name in names])


def test_locked_runs_use_the_lock_only(sources: Sources, hubmerge: Command) -> None:
    first = sources.push("first", 0)
    recipe = sources.recipe(on_update="append")
    path = recipe.with_name("recipe.lock.yaml")
    status, _, errors = hubmerge("run", recipe, "--locked")
    assert status == 2
    assert "hubmerge lock" in errors
    assert hubmerge("lock", recipe)[0] == 0
    text = path.read_text()
    sources.push("first", 1)
    sources.push("second", 1)
    assert hubmerge("run", recipe, "--locked")[0] == 0
    assert len(sources.titles()) == 1
    lock = Lock.from_yaml(Path(hf_hub_download(sources.target, "hubmerge.lock.yaml")).read_text())
    assert [model.commit for model in lock.models] == [first]
    assert path.read_text() == text

    recipe.write_text(recipe.read_text().replace("opcm", "magmax"))
    status, _, errors = hubmerge("run", recipe, "--locked")
    assert status == 2
    assert "another recipe" in errors
    recipe.write_text(recipe.read_text().replace("magmax", "opcm"))

    path.write_text(text.replace(first, HfApi().model_info(sources.repo("first")).sha or ""))
    status, _, errors = hubmerge("run", recipe, "--locked")
    assert status == 3
    assert "does not match the lock" in errors
    assert len(sources.titles()) == 1


def test_a_lock_beside_the_recipe_pins_commits_of_plain_runs(sources: Sources, hubmerge: Command) -> None:
    first = sources.push("first", 0)
    recipe = sources.recipe([{"model": sources.repo("first"), "name": "first"}])
    assert hubmerge("lock", recipe)[0] == 0
    sources.push("first", 1)
    assert hubmerge("run", recipe)[0] == 0
    report = json.loads(Path(hf_hub_download(sources.target, "hubmerge.json")).read_text())
    assert report["steps"][0]["commit"] == first


def test_trusted_publishing_without_an_identity_is_an_error(
    sources: Sources,
    hubmerge: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = sources.recipe()
    for name in ("HF_OIDC_ID_TOKEN", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_OIDC_RESOURCE", sources.target)
    status, _, errors = hubmerge("outdated", recipe)
    assert status == 3
    assert "id-token: write" in errors
