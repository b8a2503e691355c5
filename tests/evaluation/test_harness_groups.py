"""Groups and tags of lm-evaluation-harness: their data, and their scores."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import datasets
import pytest

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.harness_checks import check_language_task
from hubmerge.evaluation.harness_index import find_harness_task, members_of
from hubmerge.evaluation.harness_metrics import MEAN, choose_metrics, values_of
from hubmerge.evaluation.harness_sources import harness_dataset, splits_of
from hubmerge.plan.samples import data_error
from hubmerge.report.inputs import DataReport, TaskReport
from merge_recipes import DatasetReference, Task
from merge_recipes.language_task import with_dataset
from tests.checks import every
from tests.evaluation.harness_tasks import open_llama, prepare, save_llama
from tests.evaluation.small_text import WORDS, sentences

OPEN_LLM = ("arc_challenge", "hellaswag", "truthfulqa", "mmlu", "winogrande", "gsm8k")


def make_task(name: str, **keys: Any) -> Task:
    values = {"name": "x", "kind": "lm-eval", "task": name, "dataset": harness_dataset(name), **keys}
    return Task.model_validate_json(json.dumps(with_dataset(values)))


def test_the_data_of_a_group_is_every_split_that_it_scores() -> None:
    glue = {"path": "nyu-mll/glue"}
    more = [{**glue, "name": "mnli", "split": f"validation_{one}"} for one in ("matched", "mismatched")]
    assert harness_dataset("glue") == {**glue, "split": "validation", "more": more}
    assert harness_dataset("wmdp") == {"path": "cais/wmdp"}
    found = harness_dataset("openllm")
    paths = [found["path"], *(one["path"] for one in found["more"])]
    assert len(paths) == len(set(paths)) == 6
    assert [one.get("split", "test") for one in found["more"]].count("validation") == 3


@pytest.mark.parametrize("name", ["glue", "openllm", "mmlu", "wmdp", "leaderboard", "agieval", "multimedqa"])
def test_a_group_is_accepted_with_the_data_that_is_found(name: str) -> None:
    assert not list(check_language_task(make_task(name)))


def test_the_order_of_the_data_does_not_matter() -> None:
    found = harness_dataset("glue")
    first, *others = [{key: value for key, value in found.items() if key != "more"}, *found["more"]][::-1]
    task = make_task("glue", dataset={**first, "more": others})
    assert not list(check_language_task(task))
    (_, error), *_ = check_language_task(make_task("glue", dataset={**first, "more": others[:1]}))
    assert "the recipe does not have nyu-mll/glue validation" in error.message
    assert "remove the key `dataset`" in str(error.hint)


def test_the_examples_of_a_group_are_known_where_its_tasks_score_whole_splits() -> None:
    splits = splits_of(make_task("glue"))
    assert [(one.tasks, one.is_whole) for one in splits] == [(7, False), (1, True), (1, True)]
    assert splits[0].reference.name == "cola"
    assert every(one.is_whole for one in splits_of(make_task("lambada")))


def test_later_steps_are_scored_on_the_same_splits() -> None:
    commits = ["1" * 40] * 3
    glue = TaskReport("x", "lm-eval", 1, "nyu-mll/glue", split="validation", commit=commits[0])
    splits = tuple(
        DataReport("nyu-mll/glue", commits[0], (), "mnli", f"validation_{one}") for one in ("matched", "mismatched")
    )
    recorded = replace(glue, more_data=splits)
    task = make_task("glue")
    assert data_error(task, commits, [recorded]) is None
    wrong: list[tuple[TaskReport, tuple[str | int, ...], str]] = [
        (glue, ("more", 0, "path"), "were scored on no further split, the recipe has nyu-mll/glue at 111111111111"),
        (replace(recorded, more_data=(*splits, splits[0])), ("more",), "the recipe has no further split"),
        (
            replace(recorded, more_data=splits[::-1]),
            ("more", 0, "split"),
            "scored on split validation_mismatched of mnli",
        ),
    ]
    for report, keys, cause in wrong:
        found = data_error(task, commits, [report])
        assert found is not None
        assert found[0] == keys
        assert cause in found[1].message


def results_of(name: str) -> dict[str, dict[str, float]]:
    """Return results as the harness gives them: the number of a task in percent."""
    found = find_harness_task(make_task(name))
    keys = (
        "acc,none",
        "mcc,none",
        "bleu_acc,none",
        "acc_norm,none",
        "exact_match,none",
        "prompt_level_strict_acc,none",
    )
    strict = ("exact_match,strict-match", "exact_match,flexible-extract")
    return {leaf: dict.fromkeys((*keys, *strict), row / 100) for row, leaf in enumerate(found.leaves)}


def test_members_without_a_common_metric_are_averaged() -> None:
    task = make_task("openllm")
    found, results = find_harness_task(task), results_of("openllm")
    results["mmlu"] = {"acc,none": 0.9, "acc_stderr,none": 0.1}
    assert tuple(one.name for one in members_of(found)) == OPEN_LLM
    choice = choose_metrics(task, found)
    values = values_of(choice, results, found)
    truthful = [results[name]["acc,none"] for name in ("truthfulqa_gen", "truthfulqa_mc1", "truthfulqa_mc2")]
    alone = [results[name]["acc,none"] for name in OPEN_LLM if name not in {"truthfulqa", "mmlu"}]
    assert values[MEAN] == pytest.approx((sum(alone) + 0.9 + sum(truthful) / 3) / 6)
    assert (choice.names, values["acc/mmlu"]) == ((MEAN,), 0.9)
    assert values["bleu_acc/truthfulqa_gen"] == truthful[0]
    assert values["exact_match,strict-match/gsm8k"] == results["gsm8k"]["acc,none"]
    assert len([key for key in values if key.startswith("acc/mmlu_")]) == 57


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("llama")
    save_llama(folder, positions=512)
    return open_llama(folder)


def literature(source: DatasetReference) -> datasets.Dataset:
    """Return rows for the tasks of a tag: with four choices in one repo, with words as answers in the other."""
    texts, asks_for_choice = sentences(6, seed=3), source.path.endswith("1")
    answers = ["A", "B", "C", "D", "A", "B"] if asks_for_choice else WORDS[:6]
    columns = {**{name: WORDS[row : row + 6] for row, name in enumerate("ABCD")}, "answer": answers}
    shown = {"instruction": ["cat"] * 6, "passage": texts, "question": texts[::-1]}
    return datasets.Dataset.from_dict({**columns, **shown})


def test_the_harness_scores_members_with_other_metrics_on_their_own_data(scorer: Any) -> None:
    asked = []

    def read(source: DatasetReference) -> datasets.Dataset:
        asked.append((source.path, source.name, source.split))
        return literature(source)

    task = make_task("uyghur_literature", limit=5)
    prepared = prepare(task, scorer, read)
    assert (prepared.examples, prepared.metric_names) == (10, (MEAN,))
    assert prepared.place == "task x, keramjan/CELEP1, split train and 1 more split"
    assert set(asked) == {(f"keramjan/CELEP{number}", "main", "train") for number in (1, 2)}
    values = prepared.score(scorer)
    assert set(values) == {MEAN, "acc/celep1", "exact_match/celep2"}
    assert values[MEAN] == pytest.approx((values["acc/celep1"] + values["exact_match/celep2"]) / 2)


def test_a_metric_that_the_harness_aggregates_over_some_tasks_can_be_named() -> None:
    task = make_task("leaderboard", metrics=["acc_norm"])
    choice = choose_metrics(task, find_harness_task(task))
    assert choice.names == ("acc_norm",)
    with pytest.raises(EvaluationError, match="no metric 'rouge'") as caught:
        choose_metrics(task.model_copy(update={"metrics": ("rouge",)}), find_harness_task(task))
    assert MEAN in str(caught.value.hint)
    assert "acc_norm" in str(caught.value.hint)


def test_a_group_without_scores_that_can_be_averaged_is_refused_with_its_members() -> None:
    task = make_task("french_bench_extra")
    ((key, error),) = check_language_task(task)
    assert key == ("metrics",)
    assert "needs a metric of which more is better; its tasks have no common one" in error.message
    hint = str(error.hint)
    assert "`- {name: french_bench_boolqa, kind: lm-eval, task: french_bench_boolqa}`" in hint
    assert "french_bench_xnli" in hint


def test_tags_in_included_files_are_found() -> None:
    assert len(find_harness_task(make_task("adr")).leaves) > 5
