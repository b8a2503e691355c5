"""Complete runs over HTTP: published files, and second runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from safetensors.torch import load_file

from hubmerge.plan import plan_run
from hubmerge.stream.sources import folder_digest
from hubmerge.support.text import short_commit
from merge_recipes import Lock
from tests.checks import every
from tests.reliability.target_checks import NAMED_AFTER_THE_REPO, files_at
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
MERGED = "model.safetensors"


def check_loads(stage: Stage, repo: str) -> None:
    """Check that transformers loads the published model, with the weights of the first tower at step 1."""
    from PIL import Image
    from transformers import CLIPModel, pipeline

    model = CLIPModel.from_pretrained(repo, revision="step-01")
    tower = load_file(hf_hub_download(stage.towers[next(iter(stage.towers))], "model.safetensors"))
    merged = model.vision_model.state_dict()
    for name, value in tower.items():
        torch.testing.assert_close(merged[name.removeprefix("vision_model.")], value, rtol=1e-6, atol=1e-8)
    classify = pipeline("zero-shot-image-classification", model=repo)
    assert len(classify(Image.new("RGB", (30, 30), "red"), candidate_labels=["circle", "square"])) == 2


def check_metadata(stage: Stage, repo: str, recipe: Path) -> None:
    """Check report, lock, recipe and card of a published stream."""
    report = json.loads(Path(hf_hub_download(repo, "hubmerge.json", revision="step-02")).read_text())
    assert [step["step"] for step in report["steps"]] == [1, 2]
    assert report["steps"][0]["scale"] == 1.0
    assert set(report["steps"][1]["scores"]) == set(list(stage.towers)[:2])
    lock = Lock.from_yaml(Path(hf_hub_download(repo, "hubmerge.lock.yaml")).read_text())
    assert lock.base_model.commit == HfApi().model_info(stage.base).sha
    assert Path(hf_hub_download(repo, "hubmerge.yaml")).read_bytes() == recipe.read_bytes()
    card = ModelCard.load(repo)
    card.validate()
    assert card.data.base_model[0] == stage.base
    assert card.data.license == "apache-2.0"
    assert card.data.datasets is None, "the data of scores are no training data"


def test_every_step_is_a_tagged_commit_that_loads(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Callable[..., str]
) -> None:
    repo = repo_name("merged")
    recipe = stage.write(tmp_path, stage.recipe(repo))
    status, output, errors = hubmerge("run", recipe)
    assert status == 0, errors
    assert f"{repo}/tree/step-03" in output
    api = HfApi()
    tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo).tags}
    assert list(tags) == ["step-01", "step-02", "step-03"]
    titles = [commit.title for commit in api.list_repo_commits(repo)]
    assert titles[:3] == [f"step-0{n}: merge {name}" for n, name in reversed(list(enumerate(stage.towers, 1)))]
    steps = [files_at(repo, tag) for tag in tags]
    assert every("model.safetensors.index.json" not in step for step in steps), "a small model is one file"
    assert len({step[MERGED] for step in steps}) == 3
    wanted = {*NAMED_AFTER_THE_REPO, "preprocessor_config.json"}
    assert wanted <= set(steps[0])

    check_loads(stage, repo)
    check_metadata(stage, repo, recipe)
    again = hubmerge("run", recipe)
    assert again[0] == 0
    assert "nothing to do" in again[1]
    assert [commit.title for commit in api.list_repo_commits(repo)] == titles


def test_longer_recipe_adds_only_the_new_step(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Callable[..., str]
) -> None:
    repo, names = repo_name("merged"), tuple(stage.towers)
    assert hubmerge("run", stage.write(tmp_path, stage.recipe(repo, entries=names[:2])))[0] == 0
    before = files_at(repo, "step-02")
    status, output, errors = hubmerge("run", stage.write(tmp_path, stage.recipe(repo)), "--json")
    assert status == 0, errors
    events = [json.loads(line) for line in output.splitlines()]
    assert [event["step"] for event in events if event["event"] == "step"] == [3]
    assert files_at(repo, "step-02") == before
    whole = repo_name("merged")
    assert hubmerge("run", stage.write(tmp_path, stage.recipe(whole)))[0] == 0
    assert files_at(repo, "step-03")[MERGED] == files_at(whole, "step-03")[MERGED]


def test_new_commit_of_a_source_does_not_change_merged_steps(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Callable[..., str]
) -> None:
    from huggingface_hub import snapshot_download

    names = tuple(stage.towers)
    source, repo = repo_name("source"), repo_name("merged")
    api = HfApi()
    api.create_repo(source)
    api.upload_folder(repo_id=source, folder_path=snapshot_download(stage.towers[names[0]]))
    models = [{"model": source, "name": names[0]}, {"model": stage.towers[names[1]], "name": names[1]}]
    recipe = stage.recipe(repo, models=models, evaluate=None)
    assert hubmerge("run", stage.write(tmp_path, recipe))[0] == 0
    api.upload_folder(repo_id=source, folder_path=snapshot_download(stage.towers[names[2]]))
    status, output, _ = hubmerge("run", stage.write(tmp_path, recipe))
    assert status == 0
    assert "nothing to do" in output


def test_only_the_last_step_is_published_when_asked(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Callable[..., str]
) -> None:
    repo = repo_name("merged")
    recipe = stage.write(tmp_path, stage.recipe(repo, publish={"repo": repo, "steps": "last"}))
    assert hubmerge("run", recipe)[0] == 0
    assert [ref.name for ref in HfApi().list_repo_refs(repo).tags] == ["step-03"]
    report = json.loads(Path(hf_hub_download(repo, "hubmerge.json")).read_text())
    assert [len(step["scores"]) for step in report["steps"]] == [1, 2, 3]
    assert "nothing to do" in hubmerge("run", recipe)[1]


def test_published_tower(stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Callable[..., str]) -> None:
    from transformers import CLIPVisionModel

    repo = repo_name("merged")
    recipe = stage.recipe(repo, publish={"repo": repo, "model": "tower", "steps": "last"})
    assert hubmerge("run", stage.write(tmp_path, recipe))[0] == 0
    model, found = CLIPVisionModel.from_pretrained(repo, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    assert every(torch.isfinite(value).all() for value in model.state_dict().values())


def test_output_folder_without_publish(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    from transformers import CLIPModel

    before = {model.id for model in HfApi().list_models()}
    recipe = stage.write(tmp_path, stage.recipe(None))
    status, _, errors = hubmerge("run", recipe, "--out", tmp_path / "out")
    assert status == 0, errors
    assert {model.id for model in HfApi().list_models()} == before
    assert CLIPModel.from_pretrained(tmp_path / "out").config.model_type == "clip"
    status, output, _ = hubmerge("run", recipe, "--out", tmp_path / "out")
    assert status == 0
    assert "nothing to do" in output


def test_local_folders_give_the_same_model(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    remote = stage.recipe(None, evaluate=None)
    assert hubmerge("run", stage.write(tmp_path, remote), "--out", tmp_path / "remote")[0] == 0
    (tmp_path / "recipes").mkdir()
    local = {
        **remote,
        "base_model": str(stage.folder / "base"),
        "models": [{"model": str(stage.folder / "towers" / name), "name": name} for name in stage.towers],
    }
    assert hubmerge("run", stage.write(tmp_path / "recipes", local), "--out", tmp_path / "local")[0] == 0
    assert (tmp_path / "local" / MERGED).read_bytes() == (tmp_path / "remote" / MERGED).read_bytes()


def test_shuffled_order_follows_the_seed(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    recipe = stage.recipe(None, order="shuffled", seed=1, evaluate=None)
    status, output, _ = hubmerge("run", stage.write(tmp_path, recipe), "--json")
    assert status == 0
    events = [json.loads(line) for line in output.splitlines()]
    names = [event["name"] for event in events if event["event"] == "step"]
    assert sorted(names) == sorted(stage.towers)
    assert names != list(stage.towers)


def test_plan_reads_headers_only(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Callable[..., str]
) -> None:
    repo = repo_name("merged")
    recipe = stage.write(tmp_path, stage.recipe(repo))
    status, output, _ = hubmerge("plan", recipe, "--json")
    assert status == 0
    (plan,) = [event for line in output.splitlines() if (event := json.loads(line))["event"] == "plan"]
    assert [step["name"] for step in plan["steps"]] == list(stage.towers)
    assert plan["weight_matrices"] == 24
    assert "text_projection.weight" in plan["kept"]
    assert plan["state_bytes"] > 0
    assert not HfApi().repo_exists(repo)
    status, text, _ = hubmerge("plan", recipe)
    assert status == 0
    assert "weight matrices" in text
    assert f"     1  {next(iter(stage.towers))} " in text
    assert f"publish  every step to {repo} (new, public)" in text.splitlines()


def test_plan_of_a_finished_stream(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = repo_name("merged")
    changed = stage.recipe(repo, entries=tuple(stage.towers)[:2], evaluate=None)
    changed["publish"]["steps"] = "last"
    recipe = stage.write(tmp_path, changed)
    assert hubmerge("run", recipe, "--quiet")[0] == 0
    monkeypatch.setattr(plan_run, "cached_bytes", lambda *_: 0)
    status, output, _ = hubmerge("plan", recipe, "--json")
    assert status == 0
    (plan,) = [event for line in output.splitlines() if (event := json.loads(line))["event"] == "plan"]
    assert (plan["first_step"], plan["download_bytes"], plan["work_bytes"], plan["estimated_seconds"]) == (3, 0, 0, 0)
    status, text, _ = hubmerge("plan", recipe)
    assert status == 0
    assert "missing  no step: all 2 are done" in text.splitlines()
    assert f"publish  the last step to {repo}" in text.splitlines()
    assert not {"download", "disk", "time"} & {line.partition(" ")[0] for line in text.splitlines()}
    done = [line for line in text.splitlines() if line.endswith("  done")]
    assert [line.split()[1] for line in done] == [*stage.towers][:2]


def test_plan_shows_twelve_digits_of_commits(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    name = next(iter(stage.towers))
    folder = stage.folder / "towers" / name
    recipe = stage.recipe(None, models=[{"model": str(folder), "name": name}], evaluate=None)
    status, text, errors = hubmerge("plan", stage.write(tmp_path, recipe))
    assert status == 0, errors
    assert f"  {folder_digest(folder)[: len('sha256:') + 12]}  on disk" in text
    assert f"on {stage.base} ({str(HfApi().model_info(stage.base).sha)[:12]})" in text
    assert short_commit("sha256:" + "3" * 64) == "sha256:" + "3" * 12
    assert short_commit("a" * 40) == "a" * 12


@pytest.mark.parametrize("output_format", ["--quiet", "--json"])
def test_quiet_and_json_output(stage: Stage, hubmerge: Command, tmp_path: Path, output_format: str) -> None:
    names = tuple(stage.towers)[:1]
    status, output, errors = hubmerge("run", stage.write(tmp_path, stage.recipe(None, entries=names)), output_format)
    assert (status, errors) == (0, "")
    if output_format == "--quiet":
        assert output == ""
    else:
        assert every(json.loads(line)["event"] for line in output.splitlines())
