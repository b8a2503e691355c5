"""Mistakes in tasks: all found by `plan` and `run` before any weight is read, each with its line in the recipe."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from huggingface_hub import HfApi

import hubmerge
from hubmerge.errors import CombinedError, DatasetError
from hubmerge.hub.dataset_preview import preview_dataset
from hubmerge.hub.datasets import load_rows
from merge_recipes import DatasetReference
from tests.checks import every
from tests.plan.planned_tasks import LABEL, NUMBER, PICTURE, PICTURES, WORD, Command, planned, write
from tests.stage import Stage

__all__ = ["planned"]  # fixtures

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


Mistake = tuple[dict[str, Any], str, str]


def mistakes_of_columns(folder: Path, good: str) -> list[Mistake]:
    """Return tasks with a mistake in the split or a column, the key that is wrong, and what the message says."""
    return [
        (
            {"dataset": {"path": good, "split": "tests"}},
            "dataset.split",
            "no split 'tests'; did you mean test?",
        ),
        ({"dataset": {"path": good, "split": "test[2"}}, "dataset.split", "split 'test[2'"),
        ({"dataset": {"path": good, "split": "test[:0]"}}, "dataset.split", "no examples"),
        ({"dataset": {"path": good, "image": "img"}}, "dataset.image", "no image column 'img'"),
        ({"dataset": {"path": good, "image": "label"}}, "dataset.image", "not images"),
        ({"dataset": {"path": good, "label": "lable"}}, "dataset.label", "no label column 'lable'"),
        (
            {"dataset": {"path": write(folder / "hot", datasets.List(LABEL), [[0], [1]])}},
            *("dataset.label", "not classes"),
        ),
        (
            {"dataset": {"path": write(folder / "numbers", NUMBER, [0, 1])}},
            *("dataset.label", "the dataset has no class names"),
        ),
        (
            {"dataset": {"path": write(folder / "more", NUMBER, [0, 1, 2])}, "class_names": ["x", "y"]},
            *("class_names", "label 2 in column 'label', outside 0..1"),
        ),
    ]


def mistakes_of_labels(folder: Path, good: str) -> list[Mistake]:
    """Return tasks whose labels do not fit, the key that is wrong, and what the message says."""
    return [
        ({"dataset": {"path": write(folder / "none", LABEL, [-1, -1])}}, "dataset.label", "label -1"),
        ({"dataset": {"path": write(folder / "gaps", LABEL, [0, None, 1])}}, "dataset.label", "1 row has"),
        (
            {"dataset": {"path": write(folder / "words", WORD, ["cat", "dog"])}, "class_names": ["cat", "bird"]},
            *("class_names", "the label 'dog', which is not among class_names"),
        ),
        ({"dataset": {"path": good}, "class_names": ["x", "y", "z"]}, "class_names", "has 3 names"),
        ({"dataset": {"path": good}, "class_names": ["b", "a"]}, "class_names", "class 0 is 'b'"),
        ({"dataset": {"path": write(folder / "one", WORD, ["cat"])}}, "dataset.label", "1 class"),
    ]


def mistakes_of_metrics(good: str, uncomputable: str) -> list[Mistake]:
    """Return tasks whose metrics or prompts do not fit, the key that is wrong, and what the message says."""
    return [
        ({"dataset": {"path": good}, "metrics": ["accuracy", "top5"]}, "metrics[1]", "did you mean top-5?"),
        ({"dataset": {"path": good}, "metrics": ["me/metric"]}, "metrics[0]", "is code that would run"),
        (
            {"dataset": {"path": good}, "metrics": [uncomputable]},
            *("metrics[0]", "could not be computed: choose an average"),
        ),
        (
            {"dataset": {"path": good}, "metrics": ["perplexity"]},
            "metrics[0]",
            "does not apply to classes",
        ),
        ({"kind": "text-classification", "dataset": {"path": good}}, "dataset.text", "no text column 'text'"),
        (
            {"kind": "causal-lm", "dataset": {"path": good, "text": "label"}, "prompts": ["{}!"]},
            "prompts",
            "no prompts",
        ),
    ]


def test_all_mistakes_of_all_tasks_at_once(
    tmp_path: Path, planned: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = write(tmp_path / "good", LABEL, [0, 1, 1, 0])
    uncomputable = write_metric(tmp_path / "binary", monkeypatch)
    tasks = [
        *mistakes_of_columns(tmp_path, good),
        *mistakes_of_labels(tmp_path, good),
        *mistakes_of_metrics(good, uncomputable),
    ]
    status, errors, lines = planned(*(task for task, _, _ in tasks))
    assert status == 2
    problems = re.split(r"\n(?!  hint: )", errors.strip())
    for number, (_, key, message) in enumerate(tasks):
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
    assert every(
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
