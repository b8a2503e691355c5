"""The card of a merged language model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import ModelCard

from hubmerge.cards import CardDetails, card_text
from hubmerge.cards.metadata import planned_card
from hubmerge.report.licenses import NO_LICENSE
from hubmerge.report.report import RunReport, Scores, TaskReport
from tests.cards.samples import RECIPE, sample_report


def writing() -> RunReport:
    report = sample_report()
    task = TaskReport("sun397", "causal-lm", 1, "me/texts", None, "test", "a" * 40, ("perplexity",), 300)
    scores: Scores = {"sun397": {"accuracy": 0.5, "perplexity": 12.3456}}
    step = replace(report.steps[0], scores=scores)
    base: Scores = {"sun397": {"accuracy": 0.25, "perplexity": 99.5}}
    return replace(report, tasks=(task,), steps=(step,), base_scores=base, own_scores={})


def test_perplexity_is_outside_of_the_matrix() -> None:
    report = writing()
    assert report.other_metrics() == [("sun397", "perplexity", [99.5, None, 12.3456])]
    lines = report.other_metrics_text().split("\n")
    assert lines[0].split() == ["task", "metric", "base", "model", "own", "checkpoint", "this", "model"]
    assert lines[1].split() == ["sun397", "perplexity", "99.5000", "-", "12.3456"]
    assert report.main_scores(report.steps[0].scores) == {"sun397": 0.5}
    details = CardDetails(RECIPE, repo="me/merged", pipeline_tag="causal-lm", processor_class=None)
    text = card_text(report, details)
    assert "| sun397 | perplexity | 99.5000 | - | 12.3456 |" in text
    assert "tokenizer = AutoTokenizer.from_pretrained(" in text
    data: Any = ModelCard(text).data
    assert data.pipeline_tag == "text-generation"
    results = {result.metric_type: (result.task_type, result.metric_value) for result in data.eval_results or []}
    assert results == {"accuracy": ("text-generation", 0.5), "perplexity": ("text-generation", 12.3456)}


def tag_of(card: str) -> Any:
    return ModelCard(card).data.to_dict().get("pipeline_tag")


@pytest.mark.parametrize(
    ("kinds", "tag"),
    [
        (["text-classification"], "text-classification"),
        (["zero-shot-text-classification"], "zero-shot-classification"),
        (["sentence-similarity"], "sentence-similarity"),
        (["text-retrieval"], "sentence-similarity"),
        (["sentence-similarity", "text-retrieval"], "sentence-similarity"),
        (["lm-eval"], "text-generation"),
        (["generation"], "text-generation"),
        (["causal-lm", "lm-eval", "generation"], "text-generation"),
        (["text-classification", "generation"], None),
    ],
)
def test_all_kinds_with_texts_have_a_tokenizer_and_a_name_of_the_hub(kinds: list[str], tag: str | None) -> None:
    report = writing()
    tasks = tuple(replace(report.tasks[0], name=f"task-{kind}", kind=kind) for kind in kinds)
    step = replace(report.steps[0], scores={task.name: {"accuracy": 0.5} for task in tasks})
    report = replace(report, tasks=tasks, steps=(step,), base_scores={})
    given = kinds[0] if len(kinds) == 1 else None
    text = card_text(report, CardDetails(RECIPE, repo="me/merged", pipeline_tag=given, processor_class=None))
    assert 'tokenizer = AutoTokenizer.from_pretrained("me/merged", revision="step-01")' in text
    assert tag_of(text) == tag
    details = CardDetails(RECIPE, repo="me/merged", pipeline_tag=given, library="sentence-transformers")
    assert tag_of(card_text(report, details)) == "sentence-similarity"
    planned = planned_card(report, name="me/merged", merged=NO_LICENSE)
    assert tag_of(planned) == tag


def test_cards_of_form_7_keep_their_data() -> None:
    report = writing()
    report = replace(report, tasks=(replace(report.tasks[0], kind="text-retrieval"),))
    details = CardDetails(RECIPE, repo="me/merged", pipeline_tag="text-retrieval", processor_class=None, form=7)
    text = card_text(report, details)
    assert tag_of(text) == "text-retrieval"
    assert "AutoTokenizer" not in text


def test_metrics_are_in_the_order_of_the_file() -> None:
    report = writing()
    scores: Scores = {"sun397": {"accuracy": 0.5, "perplexity": 9.0, "accuracy_stderr": 0.1, "accuracy/part": 0.5}}
    written = replace(report, steps=(replace(report.steps[0], scores=scores),))
    read = RunReport.from_json(written.to_json())
    assert written.other_metrics() == read.other_metrics()
    assert [metric for _, metric, _ in read.other_metrics()] == ["accuracy/part", "accuracy_stderr", "perplexity"]


def test_without_other_metrics_there_is_no_table() -> None:
    report = writing()
    plain = replace(report, steps=(replace(report.steps[0], scores={"sun397": {"accuracy": 0.5}}),))
    assert plain.other_metrics_text() == ""
    assert replace(report, steps=()).other_metrics() == []
