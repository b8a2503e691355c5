"""Tests of stand-ins: ids and columns of the repos, and runs of the paper's recipes on them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
from huggingface_hub import HfApi

from hubmerge.cli.main import main
from hubmerge.demo.stand_in_data import CLASSES, class_names, write_dataset
from hubmerge.demo.stand_ins import check_endpoint, make_stand_ins, push_stand_ins
from hubmerge.demo.stand_ins import main as stand_ins_main
from hubmerge.errors import HubError, HubmergeError
from hubmerge.hub.datasets import load_rows
from hubmerge.stream.catalog import installed_catalog
from hubmerge.study import LoadedStudy, load_study, run_study
from hubmerge.study.cells import cells
from hubmerge.support.progress import SilentProgress
from merge_recipes import LoadedRecipe, Task, load_recipe, parse_recipe
from tests.checks import every

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "opcm"
STUDIES = sorted(RECIPES.glob("*/studies/*.yaml"))
ROWS = 12


def recipe_of(model: str, size: int) -> LoadedRecipe:
    return load_recipe(RECIPES / f"clip-vit-{model}" / f"{size}-tasks.yaml")


def tasks() -> dict[str, Task]:
    recipe = recipe_of("base-patch32", 20).recipe
    assert recipe.evaluate is not None
    return {task.name: task for task in recipe.evaluate.tasks}


def slow(model: str, size: int) -> object:
    return pytest.param(model, size, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("large-patch14", 8),
        *(slow(model, size) for model in ("base-patch32", "base-patch16") for size in (8, 14, 20)),
        *(slow("large-patch14", size) for size in (14, 20)),
    ],
)
def test_recipes_of_the_paper_run(model: str, size: int, tmp_path: Path) -> None:
    loaded = recipe_of(model, size)
    said: list[str] = []
    assert push_stand_ins([loaded.recipe], said.append, images=1, rows=ROWS) == 2 * size + 1 == len(said)
    run_and_check(loaded, tmp_path)


@pytest.mark.slow
def test_models_of_full_size_run(tmp_path: Path) -> None:
    loaded = recipe_of("base-patch32", 8)
    push_stand_ins([loaded.recipe], lambda _: None, full=True, images=1, rows=ROWS)
    run_and_check(loaded, tmp_path)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["vision_config"]["hidden_size"] == 768


@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: str(path.relative_to(RECIPES)))
def test_studies_of_the_paper_run(path: Path, tmp_path: Path) -> None:
    """Run every variant on its whole stream, in one order."""
    loaded = load_study(path, installed_catalog())
    run_study_and_check(loaded, {"orders": 1}, tmp_path)


def test_the_main_table_of_the_paper_runs_on_two_tasks(tmp_path: Path) -> None:
    loaded = load_study(RECIPES / "clip-vit-base-patch32" / "studies" / "main-table-8.yaml", installed_catalog())
    run_study_and_check(loaded, {"orders": 1, "tasks": (2,)}, tmp_path)


def run_study_and_check(loaded: LoadedStudy, changes: dict[str, object], folder: Path) -> None:
    """Run a study on stand-ins, and check every cell and every scored step."""
    push_stand_ins([loaded.recipe.recipe], lambda _: None, images=1, rows=ROWS)
    loaded = replace(loaded, study=loaded.study.model_copy(update=changes))
    results = run_study(loaded, folder / "out", folder / "cache", SilentProgress())
    expected = list(cells(loaded.study, len(loaded.recipe.recipe.entries)))
    assert [(result.label, result.tasks) for result in results] == [(cell.label, cell.tasks) for cell in expected]
    assert every(result.accuracies.steps == tuple(range(1, result.tasks + 1)) for result in results)
    table = (folder / "out" / "tables.md").read_text(encoding="utf-8")
    assert every(f"| {cell.label} | {cell.tasks} | 1 |" in table for cell in expected)


def test_every_model_of_the_paper_has_the_same_studies() -> None:
    names = [
        {path.name for path in STUDIES if path.parts[-3] == folder.parts[-2]} for folder in RECIPES.glob("*/studies")
    ]
    assert names == [{"main-table-8.yaml", "main-table-14-20.yaml", "alpha.yaml", "orders.yaml"}] * 3
    for path in STUDIES:
        study = load_study(path, installed_catalog()).study
        assert study.orders == (3 if path.stem == "alpha" else 10)
        scalings = {variant.parameters.get("scaling") for variant in study.methods} - {None}
        if path.stem.startswith("main-table"):
            assert scalings == {0.3 if study.tasks == (8,) else 0.1}


def run_and_check(loaded: LoadedRecipe, folder: Path) -> None:
    """Run a recipe, and check that every score exists."""
    work, out = folder / "work", folder / "out"
    assert main(["run", str(loaded.path), "--work-dir", str(work), "--out", str(out), "--quiet"]) == 0
    report = json.loads((out / "hubmerge.json").read_text())
    names = [entry.name for entry in loaded.recipe.entries]
    assert [step["name"] for step in report["steps"]] == names
    assert [set(step["scores"]) for step in report["steps"]] == [set(names[: n + 1]) for n in range(len(names))]
    assert set(report["base_scores"]) == set(report["own_scores"]) == set(names)
    for task in report["tasks"]:
        assert task["examples"] == min(ROWS, task["classes"])
    published = parse_recipe((out / "hubmerge.yaml").read_text())
    assert published.recipe == loaded.recipe


def test_datasets_have_the_columns_that_the_tasks_name(repo_name: Callable[..., str], tmp_path: Path) -> None:
    api, known = HfApi(), tasks()
    for name in ("pcam", "fer2013", "svhn", "food101", "cifar100", "sun397"):
        task, repo = known[name], repo_name(name)
        write_dataset(tmp_path / name, task, images=1, rows=9)
        api.create_repo(repo, repo_type="dataset")
        api.upload_folder(repo_id=repo, folder_path=tmp_path / name, repo_type="dataset")
        rows = load_rows(task.dataset.model_copy(update={"path": repo}), api.dataset_info(repo).sha)
        assert isinstance(rows.features[task.dataset.image], datasets.Image), name
        assert rows[0][task.dataset.image].size == (32, 32)
        labels = rows.features[task.dataset.label]
        if name == "pcam":
            assert (labels.dtype, rows[:]["label"]) == ("bool", [False, True])
        elif name == "fer2013":
            assert rows[:]["cls"] == [0, 1, 2, 3, 4, 5, 6]
        else:
            assert labels.num_classes == len(class_names(task))
            assert len(rows) == 9
    assert CLASSES["tanganke/sun397"] == 397


def test_a_stand_in_of_two_recipes_is_pushed_once(repo_name: Callable[..., str], tmp_path: Path) -> None:
    base, tower = repo_name("base"), repo_name("tower")
    recipe = parse_recipe(f"{{merge_method: opcm, base_model: {base}, models: [{{model: {tower}}}]}}").recipe
    said: list[str] = []
    assert push_stand_ins([recipe, recipe], said.append) == 2
    assert push_stand_ins([recipe], said.append) == 2
    assert [text.rpartition(": ")[2] for text in said] == ["pushed", "pushed", *["already there"] * 2]
    assert "drawn at random" in Path(HfApi().hf_hub_download(tower, "README.md")).read_text()


@pytest.mark.parametrize("endpoint", ["https://huggingface.co", "https://HF.co/", "https://hub-ci.huggingface.co", ""])
def test_the_public_hub_is_refused(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HubError):
        check_endpoint(endpoint)
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    arguments = ["--recipe", str(RECIPES / "clip-vit-base-patch32" / "8-tasks.yaml")]
    assert stand_ins_main(arguments) == 3


def test_other_hubs_are_accepted() -> None:
    check_endpoint(os.environ["HF_ENDPOINT"])
    check_endpoint("https://hub.example.org")


def test_models_and_tasks_without_stand_in_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unknown = parse_recipe("{merge_method: opcm, base_model: a/b, models: [{model: a/c}]}").recipe
    with pytest.raises(HubmergeError, match="size of the base model 'b' is not known"):
        list(make_stand_ins(unknown, tmp_path, full=True))
    texts = tasks()["mnist"].model_copy(update={"kind": "text-classification"})
    with pytest.raises(HubmergeError, match="has no stand-in") as caught:
        write_dataset(tmp_path / "texts", texts, 1, None)
    assert caught.value.context.repo == texts.dataset.path
    assert stand_ins_main(["--recipe", str(tmp_path / "none.yaml")]) == 2
    assert "the file does not exist" in capsys.readouterr().err
