"""Mistakes in tasks: all found by `plan` and `run` before any weight is read, each with its line in the recipe."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from huggingface_hub import HfApi
from PIL import Image

import hubmerge
from hubmerge.errors import CombinedError, DatasetError
from hubmerge.hub.dataset_preview import preview_dataset
from hubmerge.hub.datasets import load_rows
from merge_recipes import DatasetReference
from tests.conftest import STRANGER_TOKEN
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
PICTURES = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "green", "white")]
PICTURE, NUMBER, WORD = datasets.Image(), datasets.Value("int64"), datasets.Value("string")
LABEL = datasets.ClassLabel(names=["a", "b"])


def write(folder: Path, label: Any, labels: list[Any], *, split: str = "test", image: Any = PICTURE) -> str:
    """Write a Parquet split of a local dataset, and return its path."""
    images = PICTURES[: len(labels)] if image == PICTURE else ["x.png"] * len(labels)
    features = datasets.Features({"image": image, "label": label})
    folder.mkdir(exist_ok=True)
    rows = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
    rows.to_parquet(folder / f"{split}.parquet")
    return f"./{folder.name}"


@pytest.fixture
def planned(stage: Stage, hubmerge: Command, tmp_path: Path) -> Callable[..., tuple[int, str, list[str]]]:
    """Return a function that plans a recipe of these tasks: exit status, errors, lines of the recipe."""

    def plan(*tasks: dict[str, Any], command: str = "plan", **changes: Any) -> tuple[int, str, list[str]]:
        numbered = [
            {"name": f"t{number}", "kind": "zero-shot-image-classification", **task}
            for number, task in enumerate(tasks)
        ]
        recipe = stage.recipe(None, evaluate={"tasks": numbered}, **changes)
        path = stage.write(tmp_path, recipe)
        status, output, errors = hubmerge(command, path, *(["--verbose"] if command == "plan" else []))
        return status, errors if status else output, path.read_text().splitlines()

    return plan


METRIC = """
import datasets
import evaluate


class Binary(evaluate.Metric):
    def _info(self):
        features = datasets.Features(dict.fromkeys(("predictions", "references"), datasets.Value("int64")))
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        raise ValueError("choose an average")
"""


def write_metric(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a metric that can be loaded and not computed, allow it and return its name."""
    folder.mkdir()
    (folder / f"{folder.name}.py").write_text(METRIC)
    monkeypatch.setenv("HUBMERGE_TRUSTED_METRICS", str(folder))
    return str(folder)


def test_all_mistakes_of_all_tasks_at_once(
    tmp_path: Path, planned: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = write(tmp_path / "good", LABEL, [0, 1, 1, 0])
    write(tmp_path / "empty", LABEL, [0, 1])
    tasks: dict[str, tuple[dict[str, Any], str, str]] = {
        "split": (
            {"dataset": {"path": good, "split": "tests"}},
            "dataset.split",
            "no split 'tests'; did you mean test?",
        ),
        "slice": ({"dataset": {"path": good, "split": "test[2"}}, "dataset.split", "split 'test[2'"),
        "empty": ({"dataset": {"path": good, "split": "test[:0]"}}, "dataset.split", "no examples"),
        "image": ({"dataset": {"path": good, "image": "img"}}, "dataset.image", "no image column 'img'"),
        "type": ({"dataset": {"path": good, "image": "label"}}, "dataset.image", "not images"),
        "label": ({"dataset": {"path": good, "label": "lable"}}, "dataset.label", "no label column 'lable'"),
        "one-hot": (
            {"dataset": {"path": write(tmp_path / "hot", datasets.List(LABEL), [[0], [1]])}},
            *("dataset.label", "not classes"),
        ),
        "unnamed": (
            {"dataset": {"path": write(tmp_path / "numbers", NUMBER, [0, 1])}},
            *("dataset.label", "the dataset has no class names"),
        ),
        "outside": (
            {"dataset": {"path": write(tmp_path / "more", NUMBER, [0, 1, 2])}, "class_names": ["x", "y"]},
            *("class_names", "label 2 in column 'label', outside 0..1"),
        ),
        "unlabeled": ({"dataset": {"path": write(tmp_path / "none", LABEL, [-1, -1])}}, "dataset.label", "label -1"),
        "missing": ({"dataset": {"path": write(tmp_path / "gaps", LABEL, [0, None, 1])}}, "dataset.label", "1 row has"),
        "words": (
            {"dataset": {"path": write(tmp_path / "words", WORD, ["cat", "dog"])}, "class_names": ["cat", "bird"]},
            *("class_names", "the label 'dog', which is not among class_names"),
        ),
        "count": ({"dataset": {"path": good}, "class_names": ["x", "y", "z"]}, "class_names", "has 3 names"),
        "order": ({"dataset": {"path": good}, "class_names": ["b", "a"]}, "class_names", "class 0 is 'b'"),
        "single": ({"dataset": {"path": write(tmp_path / "one", WORD, ["cat"])}}, "dataset.label", "1 class"),
        "metric": ({"dataset": {"path": good}, "metrics": ["accuracy", "top5"]}, "metrics[1]", "did you mean top-5?"),
        "code": ({"dataset": {"path": good}, "metrics": ["me/metric"]}, "metrics[0]", "is code that would run"),
        "average": (
            {"dataset": {"path": good}, "metrics": [write_metric(tmp_path / "binary", monkeypatch)]},
            *("metrics[0]", "could not be computed: choose an average"),
        ),
        "perplexity": (
            {"dataset": {"path": good}, "metrics": ["perplexity"]},
            "metrics[0]",
            "does not apply to classes",
        ),
        "model": ({"kind": "text-classification", "dataset": {"path": good}}, "dataset.text", "no text column 'text'"),
        "prompts": (
            {"kind": "causal-lm", "dataset": {"path": good, "text": "label"}, "prompts": ["{}!"]},
            "prompts",
            "no prompts",
        ),
    }
    status, errors, lines = planned(*(task for task, _, _ in tasks.values()))
    assert status == 2
    problems = re.split(r"\n(?!  hint: )", errors.strip())
    for number, (key, message) in enumerate((key, message) for _, key, message in tasks.values()):
        (problem,) = (text for text in problems if f"evaluate.tasks[{number}].{key}: " in text)
        assert message in problem
        line = int(problem.removeprefix("hubmerge: ").split(":")[1])
        names = [text.strip() for text in lines[:line] if text.strip().startswith("- name: t")]
        assert names[-1] == f"- name: t{number}"
    # The base model is no text model, and labels are no texts.
    assert len(problems) == len(tasks) + 3


def test_a_good_task_is_described(tmp_path: Path, planned: Callable[..., Any]) -> None:
    path = write(tmp_path / "good", LABEL, [0, 1, 1, 0])
    status, output, _ = planned(
        {"dataset": {"path": path, "max_examples": 3}},
        {"dataset": {"path": path, "max_examples": 9, "split": "test[:50%]"}},
        {"dataset": {"path": path}, "class_names": ["x", "x"]},
    )
    assert status == 0
    assert "evaluate t0: 3 of 4 examples (balanced sample, seed 0); 2 classes" in output
    assert "         t1: all 2 examples; 2 classes" in output
    assert "note     task t1: max_examples is 9, but the split has 2 examples" in output
    assert output.count("several classes have one name") == 1
    assert "note     task t2: several classes have one name, so that they cannot be told apart: x" in output


@pytest.mark.parametrize(
    ("split", "rows"),
    [
        ("test", 3),
        ("all", 8),
        ("train+test", 8),
        ("train[:40%]+test[-1:]", 3),
        ("test[1:]", 2),
        ("tests", None),
        ("train + test", None),
        ("test[", None),
    ],
)
def test_a_split_means_what_it_means_when_the_rows_are_loaded(tmp_path: Path, split: str, rows: int | None) -> None:
    for name, count in (("train", 5), ("test", 3)):
        columns = {"text": ["x"] * count, "label": list(range(count))}
        datasets.Dataset.from_dict(columns).to_parquet(tmp_path / f"{name}.parquet")
    source = DatasetReference(path=str(tmp_path), split=split)
    if rows is None:
        for read in (preview_dataset, load_rows):
            with pytest.raises(DatasetError) as caught:
                read(source, None)
            assert "split" in str(caught.value).lower()
        return
    loaded, seen = load_rows(source, None), preview_dataset(source, None)
    assert (len(loaded), seen.rows) == (rows, rows)
    assert seen.labels == sorted(set(loaded["label"]))
    assert seen.columns == loaded.features


def test_rows_that_are_not_parquet(tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "test.csv").write_text("text,label\nyes,1\nno,0\n")
    few = preview_dataset(DatasetReference(path=str(tmp_path / "few")), "sha256:" + "a" * 64)
    assert (list(few.columns), few.rows, few.labels) == (["text", "label"], 2, [0, 1])
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "test.jsonl").write_text('{"text": "yes", "label": "x"}\n' * 40)
    many = preview_dataset(DatasetReference(path=str(tmp_path / "many")), "sha256:" + "b" * 64)
    assert (list(many.columns), many.rows, many.labels) == (["text", "label"], None, None)
    for name in ("a", "b"):
        (tmp_path / "folder" / "test" / name).mkdir(parents=True)
        PICTURES[0].save(tmp_path / "folder" / "test" / name / "1.png")
    images = preview_dataset(DatasetReference(path=str(tmp_path / "folder")), "sha256:" + "c" * 64)
    assert images.columns["label"].names == ["a", "b"]


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


def test_the_model_of_a_task_that_no_query_finds(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    recipe = stage.recipe(None)
    recipe["models"] = [{"query": f"{next(iter(stage.towers.values()))}*"}]
    recipe["evaluate"]["tasks"] = [{**recipe["evaluate"]["tasks"][0], "model": "later"}]
    status, output, errors = hubmerge("plan", stage.write(tmp_path, recipe))
    assert status == 0, errors
    assert "the stream has no entry later yet; the task is scored from step 1 on" in output


def test_nothing_is_published_before_every_task_is_prepared(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Callable[..., str]
) -> None:
    """Images are decoded before the first step is published; a plan cannot know that one is broken."""
    folder = tmp_path / "broken"
    folder.mkdir()
    whole = stage.folder / "png"
    PICTURES[0].save(whole, "PNG")
    content = whole.read_bytes()
    images = [{"bytes": content, "path": None}, {"bytes": content[:50], "path": None}]
    features = datasets.Features({"image": PICTURE, "label": LABEL})
    datasets.Dataset.from_dict({"image": images, "label": [0, 1]}, features=features).to_parquet(
        folder / "test.parquet"
    )
    third = list(stage.towers)[2]
    recipe = stage.recipe(repo := repo_name("target"))
    recipe["evaluate"]["tasks"][2]["dataset"] = {"path": "./broken"}
    path = stage.write(tmp_path, recipe)
    assert hubmerge("plan", path)[0] == 0
    status, _, errors = hubmerge("run", path, "--quiet")
    assert status == 2
    assert f"evaluate.tasks[2].dataset.path: task {third}, " in errors
    assert "row 1: the image cannot be decoded" in errors
    assert not HfApi().repo_exists(repo)


def test_several_errors_in_python_and_json(
    stage: Stage, hubmerge: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = stage.recipe(None)
    for task in recipe["evaluate"]["tasks"][:2]:
        task["dataset"]["split"] = "nope"
    with pytest.raises(CombinedError) as caught:
        hubmerge_plan(recipe)
    assert [type(error) for error in caught.value.errors] == [DatasetError, DatasetError]
    assert caught.value.exit_code == 3
    assert "recipe-" not in str(caught.value)
    status, output, _ = hubmerge("plan", stage.write(tmp_path, recipe), "--json")
    event = json.loads(output.splitlines()[-1])
    assert (status, event["event"], event["code"], event["exit_code"]) == (3, "error", "several", 3)
    assert [problem["code"] for problem in event["problems"]] == ["dataset", "dataset"]
    assert all(
        problem["line"] > 0 and problem["file"] == str(tmp_path / "recipe.yaml") for problem in event["problems"]
    )


def hubmerge_plan(recipe: dict[str, Any]) -> hubmerge.Plan:
    """Plan a dict; the fixture of the command line has the name of the package."""
    return hubmerge.plan(recipe, progress=None)


def test_all_datasets_that_the_cache_lacks_are_named(
    stage: Stage, hubmerge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_cache: None
) -> None:
    recipe = stage.write(tmp_path, stage.recipe(None))
    stage.fetch()
    assert hubmerge("lock", recipe)[0] == 0
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "empty")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    status, _, errors = hubmerge("plan", recipe)
    assert status == 3, errors
    for number, repo in enumerate(stage.datasets.values()):
        assert f"evaluate.tasks[{number}].dataset.path: dataset {repo}@" in errors
    # Files of the base model may be named too.
    assert errors.count("HF_HUB_OFFLINE is set and the response is not in the cache") >= 3
    assert errors.count("hint: run the recipe once while the Hub can be reached") == 3
