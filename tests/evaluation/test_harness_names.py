"""Tasks that come with lm-evaluation-harness: their names, their datasets, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.harness_checks import check_language_task
from hubmerge.evaluation.harness_index import find_harness_task
from hubmerge.evaluation.harness_sources import harness_dataset
from hubmerge.stream.catalog import installed_catalog
from merge_recipes import DatasetReference, RecipeError, Task, load_recipe, parse_recipe
from tests.evaluation.harness_tasks import KIND, folder, scorer

__all__ = ["folder", "scorer"]  # fixtures

ARC = {"path": "allenai/ai2_arc", "name": "ARC-Easy"}
RECIPE = """\
merge_method: opcm
base_model: me/base
models: [{model: me/a}, {model: me/b}]
evaluate:
  tasks:
    - name: a
      kind: lm-eval
      task: arc_easy  # questions of a school
      limit: 3
"""


def make_task(task: str, **dataset: Any) -> Task:
    return Task.model_validate({"name": "x", "kind": "lm-eval", "task": task, "dataset": dataset or ARC})


def test_a_task_is_found_with_its_dataset() -> None:
    assert harness_dataset("arc_easy") == ARC
    assert not list(check_language_task(make_task("arc_easy", **ARC)))


@pytest.mark.parametrize(
    ("task", "key", "message"),
    [
        (make_task("arc_esy"), "task", "has no task 'arc_esy'; did you mean arc_easy"),
        (
            make_task("arc_easy", path="you/arc", name="ARC-Easy"),
            "dataset",
            "has the path 'allenai/ai2_arc', the recipe",
        ),
        (make_task("arc_easy", path="allenai/ai2_arc"), "dataset", "does not read the subset None"),
        (make_task("arc_easy", **ARC, split="train"), "dataset", "has the split 'test', the recipe 'train'"),
        (make_task("humaneval"), "dataset", "runs code that the model writes"),
        (make_task("afrimmlu_direct_amh_prompt_1"), "dataset", "loads the metric f1 from the Hub"),
        (make_task("squadv2"), "dataset", "reads its data with code of its own"),
    ],
    ids=["name", "path", "subset", "split", "unsafe", "metric", "class"],
)
def test_mistakes_are_told(task: Task, key: str, message: str) -> None:
    found = list(check_language_task(task))
    assert found[0][0] == (key,)
    assert message in found[0][1].message


def test_the_dataset_of_a_task_is_inserted_into_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    loaded = load_recipe(file, installed_catalog())
    assert loaded.recipe.evaluate is not None
    source = loaded.recipe.evaluate.tasks[0].dataset
    assert (source.path, source.name, source.split, source.max_examples) == (*ARC.values(), "test", 3)
    assert '      dataset: {path: "allenai/ai2_arc", name: "ARC-Easy"}\n' in loaded.text
    assert parse_recipe(loaded.text).recipe == loaded.recipe
    with pytest.raises(RecipeError, match="has no task 'arc_esy'"):
        parse_recipe(RECIPE.replace("arc_easy", "arc_esy"), catalog=installed_catalog())


def questions(_: DatasetReference) -> datasets.Dataset:
    choices = [{"text": ["cat", "dog"], "label": ["A", "B"]}, {"text": ["sun", "mat"], "label": ["A", "B"]}]
    columns = {"id": ["1", "2"], "question": ["sits", "runs"], "choices": choices, "answerKey": ["A", "B"]}
    return datasets.Dataset.from_dict(columns)


def prepare(task: Task, scorer: Any, read: Any = questions) -> Any:
    return KIND.prepare(task, read, scorer, Path(), dataset_commit="1" * 40)


def test_an_installed_task_is_scored_on_its_pinned_rows(scorer: Any) -> None:
    asked = []

    def read(source: DatasetReference) -> datasets.Dataset:
        asked.append((source.path, source.name, source.split))
        return questions(source)

    prepared = prepare(make_task("arc_easy"), scorer, read)
    assert (prepared.examples, set(asked)) == (2, {("allenai/ai2_arc", "ARC-Easy", one) for one in ("train", "test")})
    values = prepared.score(scorer)
    assert set(values) == {"acc", "acc_stderr"}
    assert values == prepared.score(scorer)


def test_the_score_of_a_tag_is_the_mean_of_its_tasks(scorer: Any) -> None:
    prepared = prepare(make_task("ai2_arc", path="allenai/ai2_arc"), scorer)
    values = prepared.score(scorer)
    parts = [values[f"acc/{name}"] for name in ("arc_challenge", "arc_easy")]
    assert (prepared.examples, values["acc"]) == (4, pytest.approx(sum(parts) / 2))


def test_a_chat_template_that_is_missing_is_told(scorer: Any) -> None:
    task = make_task("arc_easy").model_copy(update={"chat_template": True})
    with pytest.raises(EvaluationError, match="the base model's tokenizer has no chat template"):
        prepare(task, scorer)


def test_a_group_is_one_task() -> None:
    assert harness_dataset("mmlu") == {"path": "cais/mmlu"}
    found = find_harness_task(make_task("mmlu", path="cais/mmlu"))
    assert len(found.leaves) == 57
    assert found.group is not None
    assert not list(check_language_task(make_task("mmlu", path="cais/mmlu")))
