"""Definitions of tasks for lm-eval: mistakes, metrics, rows that do not fit, and packages that are not installed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import hubmerge
from hubmerge.errors import EvaluationError
from hubmerge.evaluation.harness_checks import check_language_task
from tests.evaluation.harness_tasks import CHOICE, GENERATE, ROLLING, Rows, folder, make_task, prepare, scorer

__all__ = ["folder", "scorer"]  # fixtures

CODE = "needs code, and a recipe cannot bring code"
MISTAKES: list[tuple[dict[str, Any], tuple[Any, ...], str]] = [
    ({"process_docs": "utils.process"}, ("task", "process_docs"), CODE),
    ({"class": "utils.Task"}, ("task", "class"), CODE),
    ({"custom_dataset": "utils.load"}, ("task", "custom_dataset"), CODE),
    ({"unsafe_code": True}, ("task", "unsafe_code"), CODE),
    ({"process_results": "utils.results"}, ("task", "process_results"), CODE),
    ({"include": "other.yaml"}, ("task", "include"), "names another file"),
    ({"use_prompt": "promptsource:x"}, ("task", "use_prompt"), "names another file"),
    ({"group": "x"}, ("task", "group"), "a group cannot be defined"),
    ({"dataset_kwargs": {"trust_remote_code": True}}, ("task", "dataset_kwargs"), "only its commit is pinned"),
    ({"dataset_path": "you/others"}, ("task", "dataset_path"), "the definition has the dataset path 'you/others'"),
    ({"doc_to_txt": "x"}, ("task", "doc_to_txt"), "did you mean doc_to_text?"),
    ({"output_type": "choice"}, ("task", "output_type"), "unknown output_type 'choice'"),
    ({"repeats": 1000}, ("task", "repeats"), "from 1 to 64"),
    ({"generation_kwargs": {"custom_generate": "me/code"}}, ("task", "generation_kwargs", "custom_generate"), "no key"),
    ({"generation_kwargs": {"max_gen_toks": 10**9}}, ("task", "generation_kwargs", "max_gen_toks"), "whole number"),
    ({"fewshot_config": {"process_docs": "x"}}, ("task", "fewshot_config", "process_docs"), "no key 'process_docs'"),
    ({"fewshot_config": {"sampler": "x"}}, ("task", "fewshot_config", "sampler"), "unknown sampler 'x'"),
    ({"metric_list": [{"metric": "accc"}]}, ("task", "metric_list", 0, "metric"), "did you mean acc?"),
    ({"metric_list": [{"metric": "acc", "hf_evaluate": True}]}, ("task", "metric_list", 0, "hf_evaluate"), "is code"),
    (
        {"filter_list": [{"name": "x", "filter": [{"function": "custom"}]}]},
        *(("task", "filter_list", 0, "filter"), "no filter 'custom'"),
    ),
    ({"metric_list": {"metric": "acc"}}, ("task", "metric_list"), "expected a list"),
    ({"metric_list": []}, ("task", "metric_list"), "expected a list"),
    ({"filter_list": {"name": "x", "filter": [{"function": "map"}]}}, ("task", "filter_list"), "expected a list"),
    (
        {"filter_list": [{"name": "x", "filter": [{"function": {"a": 1}}]}]},
        *(("task", "filter_list", 0, "filter"), "no filter {'a': 1}"),
    ),
    ({"fewshot_config": {"sampler": ["x"]}}, ("task", "fewshot_config", "sampler"), "unknown sampler ['x']"),
    ({"test_split": None}, ("task",), "no split to score"),
    ({"test_split": "train"}, ("dataset",), "has the split 'train', the recipe 'test'"),
]


@pytest.mark.parametrize(("changes", "key", "message"), MISTAKES, ids=lambda value: str(value)[:40])
def test_definitions_with_mistakes_are_refused(changes: dict[str, Any], key: Any, message: str) -> None:
    found = list(check_language_task(make_task({**CHOICE, **changes})))
    assert [place for place, _ in found] == [key]
    assert message in found[0][1].message


@pytest.mark.parametrize(
    "changes",
    [
        {"generation_kwargs": {"custom_generate": "me/code", "trust_remote_code": True}},
        {"metric_list": [{"metric": "me/metric", "hf_evaluate": True}]},
        {"include": "/etc/passwd"},
    ],
)
def test_a_definition_that_nobody_checked_is_refused_too(changes: dict[str, Any], scorer: Any) -> None:
    with pytest.raises(EvaluationError, match="task mine: "):
        prepare(make_task({**GENERATE, **changes}), scorer)


def test_a_good_definition_has_no_mistakes() -> None:
    for definition in (CHOICE, ROLLING, GENERATE):
        assert not list(check_language_task(make_task(definition)))


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["acc_norm"], None),
        (["accuracy"], "no metric 'accuracy'"),
        (["acc_nrm"], "no metric 'acc_nrm'; did you mean acc_norm?"),
        (["bits_per_byte"], "needs a metric of which more is better"),
    ],
)
def test_metrics_are_checked(metrics: list[str], message: str | None) -> None:
    definition = ROLLING if metrics == ["bits_per_byte"] else CHOICE
    found = list(check_language_task(make_task(definition, metrics=metrics)))
    assert [key for key, _ in found] == ([("metrics",)] if message else [])
    assert message is None or message in found[0][1].message


def test_rows_that_do_not_fit_are_told(scorer: Any) -> None:
    with pytest.raises(EvaluationError, match="lm-evaluation-harness fails: UndefinedError: 'question' is undefined"):
        prepare(make_task(CHOICE), scorer, Rows({"answer": [0], "choices": [["a", "b"]]}))


def test_an_engine_that_is_not_installed_is_told() -> None:
    found = list(check_language_task(make_task(CHOICE, engine="vllm")))
    assert [key for key, _ in found] == [("engine",)]
    assert "needs the package vllm, which is not installed" in found[0][1].message


def test_a_package_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubmerge.evaluation.harness_index.PACKAGE", "lm_eval_absent")
    found = list(check_language_task(make_task("arc_easy")))
    assert [key for key, _ in found] == [("task",)]
    assert "needs the package lm-eval, which is not installed" in found[0][1].message
    assert found[0][1].hint == "pip install 'hubmerge[eval]'"


def test_the_package_is_imported_when_a_task_needs_it() -> None:
    imported = re.compile(r"^\s*(?:import|from) (?:lm_eval|sacrebleu|vllm)\b", re.MULTILINE)
    files = [*Path(hubmerge.__file__).parent.rglob("*.py")]
    assert [file for file in files if imported.search(file.read_text(encoding="utf-8"))] == []
