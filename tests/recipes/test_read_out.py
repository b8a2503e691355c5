"""The key `read` of a recipe: what is wrong with it is found without reading a weight."""

from __future__ import annotations

from typing import Any

import pytest

from hubmerge.api.recipes import load
from hubmerge.stream.catalog import installed_catalog
from merge_recipes import RecipeError, chain_digests
from merge_recipes.lock import Lock, LockedModel
from merge_recipes.notes import notes
from merge_recipes.references import ModelReference

KIND = "zero-shot-image-classification"
SCORED = {"name": "x", "kind": KIND, "dataset": {"path": "a/x"}}
HELD_OUT = {"name": "held-out", "kind": KIND, "dataset": {"path": "a/x", "split": "validation"}, "validation": True}
CHOOSE = [{"method": "wudi"}, {"method": "iso_c", "parameters": {"scaling": 1.2}}]
MEAN = {"method": "opcm", "parameters": {"others": "mean"}}
RECIPE: dict[str, Any] = {
    "merge_method": "wudi",
    "base_model": "a/b",
    "models": [{"model": "c/x"}],
    "evaluate": {"tasks": [SCORED, HELD_OUT]},
    "read": {"choose": CHOOSE, "on": "held-out"},
}


def recipe(**read: Any) -> dict[str, Any]:
    return {**RECIPE, "read": {**RECIPE["read"], **read}}


def problems(recipe: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as raised:
        load(recipe)
    return str(raised.value)


def test_a_choice_is_read() -> None:
    loaded = load(RECIPE).recipe
    assert loaded.read is not None
    assert [one.method for one in loaded.read.choose] == ["wudi", "iso_c"]
    assert [task.name for task in loaded.scored_tasks] == ["x"]
    assert notes(load(RECIPE), installed_catalog()) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"read": {"choose": CHOOSE, "on": "helt-out"}}, 'there is no task "helt-out"; did you mean held-out?'),
        ({"read": {"choose": CHOOSE, "on": "y"}, "evaluate": None}, 'there is no task "y"'),
        ({"read": {"choose": CHOOSE[:1], "on": "held-out"}}, "a choice needs two read-outs or more, got one"),
        ({"read": {"choose": [], "on": "held-out"}}, "the list is empty"),
        ({"read": {"choose": [*CHOOSE, {"method": "wudi", "parameters": {}}], "on": "held-out"}}, "already"),
        ({"read": {"choose": CHOOSE}}, "this key is required"),
        ({"read": {"choose": CHOOSE, "on": "held-out", "metric": "f1"}}, 'has no metric "f1"'),
        ({"read": None}, "this task is for validation only, and `read` does not name it"),
        ({"read": {"choose": CHOOSE, "on": "x"}}, "this task is for validation only, and `read` does not name it"),
        ({"merge_method": "opcm"}, "wudi cannot read the states of opcm"),
        ({"merge_method": "tsv_m"}, "tsv_m merges all models at once"),
        ({"form": "joint", "merge_method": "linear"}, "a merge of all models at once has no state"),
    ],
    ids=[
        "misspelled task", "no tasks", "one candidate", "no candidate", "twice", "no task", "metric", "unused task",
        "unused task beside another", "another state", "joint", "joint form",
    ],
)  # fmt: skip
def test_mistakes(changes: dict[str, Any], expected: str) -> None:
    assert expected in problems({key: value for key, value in {**RECIPE, **changes}.items() if value is not None})


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        ({"method": "isoc"}, 'there is no merge method "isoc"; did you mean iso_c?'),
        ({"method": "ties"}, "ties cannot read the states of wudi"),
        ({"method": "weight_average"}, "weight_average cannot read the states of wudi"),
        ({"method": "tsv_m"}, "tsv_m merges all models at once and reads no state"),
        ({"method": "iso_c", "parameters": {"scaling": -1}}, "expected a number > 0"),
        ({"method": "iso_c", "parameters": {"scale": 1}}, "the method iso_c has no parameter scale"),
        ({"method": "iso_c", "parameters": {"weight": 2.0}}, "weight of iso_c would need another state"),
        (
            {"method": "iso_c", "parameters": {"weight": [{"filter": "mlp", "value": 2}, {"value": 1}]}},
            "weight of iso_c would need another state",
        ),
        ({"method": "ace", "parameters": {"precision": "float32"}}, "precision of ace would need another state"),
        ({"name": "iso_c"}, "unknown key"),
        (CHOOSE[1], "this read-out is given already, as read.choose[1]"),
    ],
)
def test_mistakes_of_a_candidate(candidate: dict[str, Any], expected: str) -> None:
    message = problems(recipe(choose=[*CHOOSE, candidate]))
    assert expected in message
    assert "read.choose[2]" in message


@pytest.mark.parametrize(
    ("method", "parameters", "choose"),
    [
        ("opcm", {"alpha": 0.3, "diagonal": "keep"}, [{"method": "opcm"}, MEAN]),
        ("opcm", {"form": "stable"}, [{"method": "opcm"}, MEAN]),
        ("magmax", {}, [{"method": "magmax", "parameters": {"scaling": scaling}} for scaling in (0.3, 0.5)]),
        ("wudi", {"weight": 2.0, "precision": "float32"}, CHOOSE),
        ("wudi", {"weight": 2.0}, [{"method": "iso_c", "parameters": {"weight": 2.0}}, {"method": "ace"}]),
    ],
)  # fmt: skip
def test_methods_with_equal_states(method: str, parameters: dict[str, Any], choose: list[dict[str, Any]]) -> None:
    loaded = load({**recipe(choose=choose), "merge_method": method, "parameters": parameters}).recipe
    assert loaded.read is not None


def test_metrics_that_are_known_later_are_not_refused() -> None:
    task = {"name": "held-out", "kind": "lm-eval", "task": "arc_easy", "dataset": {"path": "a/x"}, "validation": True}
    loaded = load({**recipe(metric="acc_norm"), "evaluate": {"tasks": [SCORED, task]}}).recipe
    assert loaded.read is not None
    assert loaded.read.metric == "acc_norm"


@pytest.mark.parametrize(
    ("kind", "metric"),
    [("sentence-similarity", "spearman"), ("text-retrieval", "ndcg@10"), ("generation", "exact_match")],
)
def test_a_choice_knows_the_metric_that_is_the_default_of_a_kind(kind: str, metric: str) -> None:
    task = {"name": "held-out", "kind": kind, "dataset": {"path": "a/x"}, "validation": True}
    tasks = {"evaluate": {"tasks": [SCORED, task]}}
    assert load({**recipe(metric=metric), **tasks}).recipe.all_tasks[1].metrics == (metric,)
    expected = f'the task held-out has no metric "accuracy"; expected one of: {metric}'
    assert expected in problems({**recipe(metric="accuracy"), **tasks})


def test_a_choice_on_scored_examples_is_noted() -> None:
    own = {**RECIPE, "evaluate": {"tasks": [SCORED]}, "read": {"choose": CHOOSE, "on": "x"}}
    [note] = notes(load(own), installed_catalog())
    assert "the task x, which is scored too" in note.message
    test_split = {**HELD_OUT, "dataset": {"path": "a/x"}}
    [note] = notes(load({**RECIPE, "evaluate": {"tasks": [SCORED, test_split]}}), installed_catalog())
    assert "the split test of a/x, on which the task x is scored" in note.message


def test_the_choice_is_part_of_the_digests_of_the_steps() -> None:
    def digests(recipe: dict[str, Any]) -> tuple[str, ...]:
        commit = "0" * 40
        models = [LockedModel(name=name, reference=ModelReference.parse(f"c/{name}"), commit=commit) for name in "bx"]
        base = models[0].model_copy(update={"name": ""})
        lock = Lock.model_construct(recipe="", base_model=base, models=(models[1],))
        return chain_digests(load(recipe).recipe, lock)

    without = {**RECIPE, "read": None, "evaluate": {"tasks": [SCORED]}}
    plain = digests({key: value for key, value in without.items() if value is not None})
    assert len({plain, digests(RECIPE), digests(recipe(choose=CHOOSE[::-1])), digests(recipe(best="lowest"))}) == 4
