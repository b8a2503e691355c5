"""Metadata of a card, which the Hub reads, made from the report."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from hubmerge.cards.data import form_comment
from hubmerge.cards.markup import is_repo, one_line, plain
from hubmerge.report.licenses import License
from hubmerge.report.report import RunReport, StepReport, TaskReport
from merge_recipes import InvalidReferenceError, ModelReference
from merge_recipes.references import is_commit

OWN_TAGS = ("merge", "hubmerge")
MOST_RESULTS = 100
"""Number of tasks up to which the metadata contain the scores."""

_HUB_TASKS = dict.fromkeys(("causal-lm", "lm-eval", "generation"), "text-generation")
_PIPELINES = {"zero-shot-text-classification": "zero-shot-classification", "text-retrieval": "sentence-similarity"}
"""What the Hub calls the models of some kinds of task."""


def front_matter(
    report: RunReport,
    *,
    model_name: str,
    model_license: License,
    tags: Iterable[str] = (),
    pipeline_tag: str | None = None,
    library_name: str | None = "transformers",
    lists_datasets: bool = False,
    whole: bool = False,
) -> str:
    """Return the YAML of a card's metadata, without the lines of dashes around it.

    Models and datasets in local folders are left out: their names would be those of other repos on the Hub.

    Args:
        report: the report.
        model_name: the name of the model in its results.
        model_license: the license of the model.
        tags: more tags.
        pipeline_tag: the kind of task.
        library_name: the library that loads the model.
        lists_datasets: name the datasets of the scores under `datasets`, as cards of forms 1 and 2 do.
        whole: True for the scores of all tasks, however many there are.
    """
    tasks, models = scored_tasks(report), base_models(report)
    results = [one for task in (tasks if whole else tasks[:MOST_RESULTS]) for one in _results(task, report.steps[-1])]
    return ModelCardData(
        **_license_keys(model_license),
        language=languages_of(report) or None,
        library_name=library_name,
        pipeline_tag=None if pipeline_tag is None else hub_task(pipeline_tag),
        base_model=models or None,
        base_model_relation="merge" if models else None,
        tags=list(dict.fromkeys(one_line(tag) for tag in (*OWN_TAGS, report.merge_method, *tags))),
        datasets=(scored_datasets(tasks) or None) if lists_datasets else None,
        metrics=_metrics(tasks) or None,
        model_name=one_line(model_name) if results else None,
        eval_results=results or None,
    ).to_yaml(line_break="\n")


def planned_card(report: RunReport, *, name: str, merged: License, tags: Iterable[str] = ()) -> str:
    """Return a card with the metadata of a step that is not merged yet, and nothing but its title.

    Args:
        report: the report with made-up scores.
        name: the target repo.
        merged: the license of the merged model.
        tags: more tags.
    """
    kinds = {task.kind for task in report.tasks}
    title = name.split("/")[-1]
    head = front_matter(
        report,
        model_name=title,
        model_license=merged,
        tags=tags,
        pipeline_tag=pipeline_tag_of(kinds),
    )
    return f"---\n{form_comment()}\n{head}\n---\n\n# {plain(title)}\n"


def hub_task(kind: str) -> str:
    """Return the Hub's name for a kind of task."""
    return _HUB_TASKS.get(kind, kind)


def pipeline_tag_of(kinds: Iterable[str]) -> str | None:
    """Return what the Hub calls a model that does some kinds of task, None if they are different ones.

    >>> pipeline_tag_of(["lm-eval", "generation"]), pipeline_tag_of(["causal-lm", "text-classification"])
    ('text-generation', None)
    """
    names = {_PIPELINES.get(kind, hub_task(kind)) for kind in kinds}
    return names.pop() if len(names) == 1 else None


def base_models(report: RunReport) -> list[str]:
    """Return the repos of the base model and of the checkpoints in merge order, each once."""
    repos: list[str] = []
    for reference in (report.base_model.reference, *(model.reference for model in report.models)):
        repos.extend(repos_of(reference))
    return list(dict.fromkeys(repos))


@lru_cache(maxsize=1 << 12)
def repos_of(reference: str) -> tuple[str, ...]:
    """Return the repos of a model and its adapter, nothing for a local folder."""
    try:
        parsed = ModelReference.parse(reference)
    except InvalidReferenceError:
        return ()
    parts = [parsed] if parsed.adapter is None else [parsed, parsed.adapter]
    return tuple(part.path for part in parts if not part.is_local and is_repo(part.path))


def scored_tasks(report: RunReport) -> list[TaskReport]:
    """Return the tasks that the last step was scored on."""
    scores = report.steps[-1].scores if report.steps else {}
    return [task for task in report.tasks if task.name in scores]


def scored_datasets(tasks: Iterable[TaskReport]) -> list[str]:
    """Return the dataset repos of tasks, each once."""
    return list(dict.fromkeys(one.path for task in tasks for one in task.data if is_repo(one.path)))


def languages_of(report: RunReport) -> list[str]:
    """Return the languages that the cards of the base model and of the checkpoints name, each once."""
    out = {step.revokes for step in report.steps}
    kept = [model.licenses for model in report.models if model.name not in out]
    stated = [one for licenses in (report.base_model.licenses, *kept) for one in licenses]
    return list(dict.fromkeys(code for one in stated for code in one.languages))


def is_detail(metric: str) -> bool:
    """Return True for a standard error, and for the score of one task of a group."""
    return metric.endswith("_stderr") or "/" in metric


def _license_keys(stated: License) -> dict[str, Any]:
    values = stated.to_metadata()
    return {
        key: [*map(one_line, value)] if isinstance(value, list) else one_line(value) for key, value in values.items()
    }


def _metrics(tasks: list[TaskReport]) -> list[str]:
    names = (one_line(metric) for task in tasks for metric in task.metrics if metric != "confusion")
    return list(dict.fromkeys(names))


def _results(task: TaskReport, step: StepReport) -> list[EvalResult]:
    if not is_repo(task.dataset):
        return []
    is_one = all(one.split is None for one in task.more_data)
    return [
        EvalResult(
            task_type=one_line(hub_task(task.kind)),
            dataset_type=task.dataset,
            dataset_name=one_line(task.name),
            dataset_config=one_line(task.subset) if task.subset is not None and is_one else None,
            dataset_split=one_line(task.split) if is_one else None,
            dataset_revision=task.commit if is_commit(task.commit) else None,
            metric_type=one_line(metric),
            metric_value=round(value, 6),
        )
        for metric, value in sorted(step.scores[task.name].items())  # as in the report's file
        if isinstance(value, (int, float)) and not is_detail(metric)
    ]
