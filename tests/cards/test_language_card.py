"""The card of a merged language model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from huggingface_hub import ModelCard

from hubmerge.cards import CardDetails, card_text
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


def test_without_other_metrics_there_is_no_table() -> None:
    report = writing()
    plain = replace(report, steps=(replace(report.steps[0], scores={"sun397": {"accuracy": 0.5}}),))
    assert plain.other_metrics_text() == ""
    assert replace(report, steps=()).other_metrics() == []
