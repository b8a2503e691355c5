"""The model card of one published step, from the run's report: pure text, no network."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hubmerge.cards.data import form_comment
from hubmerge.cards.markup import block, code, details, plain, repo_link, table
from hubmerge.cards.metadata import front_matter, repos_of, scored_tasks
from hubmerge.cards.norms import norms
from hubmerge.report.accuracy import (
    AVERAGE_ACCURACY_DEFINITION,
    BACKWARD_TRANSFER_DEFINITION,
    FORGETTING_DEFINITION,
    SHARE_OF_OWN_DEFINITION,
    mean_or_none,
    percent,
)
from hubmerge.report.report import RunReport, TaskReport
from hubmerge.support.names import LOCK_FILE, PICTURE_FILE, RECIPE_FILE, step_tag
from hubmerge.support.text import short_commit
from merge_recipes.references import is_commit

ZERO_SHOT = "zero-shot-image-classification"
TEXT_KINDS = frozenset({"text-classification", "causal-lm"})


def card_text(
    report: RunReport,
    *,
    recipe_text: str,
    repo: str | None,
    license: str | None = None,  # noqa: A002 - the Hub's word for it
    tags: Iterable[str] = (),
    model_class: str = "AutoModel",
    layout: str | None = None,
    processor_class: str | None = "AutoProcessor",
    pipeline_tag: str | None = None,
    picture: str | None = PICTURE_FILE,
    every_step: bool = True,
    method_source: str | None = None,
) -> str:
    """The text of README.md for the last step in `report`.

    `repo` is where it is published, None for a folder of this machine. `model_class` and `processor_class` are names of
    classes in transformers, `layout` tells how the files are laid out. `picture` is the file of the accuracy matrix,
    None where there is none. `every_step` tells whether the earlier steps have tags of their own. `method_source` is
    where the method is described.

    Raises:
        ValueError: the report has no step.
    """
    if not report.steps:
        raise ValueError("a card needs a report with at least one step")
    name = (repo or f"{report.base_model.reference}-{report.merge_method}").split("/")[-1]
    tasks = scored_tasks(report)
    if pipeline_tag is None and tasks and {task.kind for task in tasks} == {ZERO_SHOT}:
        pipeline_tag = ZERO_SHOT
    if processor_class is None and tasks and {task.kind for task in tasks} <= TEXT_KINDS:
        processor_class = "AutoTokenizer"
    head = front_matter(
        report,
        model_name=name,
        license=license,
        tags=tags,
        pipeline_tag=pipeline_tag,
    )
    sections = [
        f"# {plain(name)}",
        _summary(report, repo, method_source),
        "## How to load it",
        _loading(report, repo, model_class, processor_class, pipeline_tag),
        *([f"Layout of the files: {plain(layout)}."] if layout else []),
        "## What was merged",
        _merged(report, every_step=every_step and repo is not None, repo=repo),
        "## Scale and norms",
        norms(report),
    ]
    if tasks:
        sections += ["## Scores", *_scores(report, tasks, picture)]
    sections += ["## The recipe", _recipe(recipe_text), "## How to make it again", _again(report, repo)]
    return f"---\n{form_comment()}\n{head}\n---\n\n" + "\n\n".join(sections) + "\n"


def _summary(report: RunReport, repo: str | None, method_source: str | None) -> str:
    count, base = len(report.steps), _model_link(report.base_model.reference, report.base_model.commit)
    made = f"by hubmerge with the method {code(report.merge_method)}"
    if method_source:
        made += f" ({_linked_papers(method_source)})"
    if count == 1:
        text = (
            f"This is one fine-tuned checkpoint of {base}, the first of a stream that is folded into one model {made}."
        )
    else:
        text = (
            f"This is {count} fine-tuned checkpoints of {base} folded into one model of the same size, one after "
            f"another and without any training, {made}."
        )
    return text if repo is None else f"{text} Its tag is {code(step_tag(report.steps[-1].step))}."


def _linked_papers(source: str) -> str:
    """The source of a method, with links to the papers that it names by their arXiv numbers."""
    return re.sub(r"arXiv&#58;(\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", plain(source))


def _loading(
    report: RunReport, repo: str | None, model_class: str, processor_class: str | None, pipeline_tag: str | None
) -> str:
    where = f'"{repo}", revision="{step_tag(report.steps[-1].step)}"' if repo else '"path/to/this/folder"'
    classes = [model_class, *([processor_class] if processor_class else [])]
    lines = [f"from transformers import {', '.join(sorted(classes))}", ""]
    lines.append(f"model = {model_class}.from_pretrained({where})")
    if processor_class:
        name = "tokenizer" if processor_class.endswith("Tokenizer") else "processor"
        lines.append(f"{name} = {processor_class}.from_pretrained({where})")
    text = block("\n".join(lines), "python")
    if pipeline_tag == ZERO_SHOT and model_class == "CLIPModel":
        call = [
            "from transformers import pipeline",
            "",
            f'classify = pipeline("{ZERO_SHOT}", model={where})',
            'classify("photo.jpg", candidate_labels=["a photo of a cat", "a photo of a dog"])',
        ]
        text += "\n\nOr all at once:\n\n" + block("\n".join(call), "python")
    return text


def _merged(report: RunReport, *, every_step: bool, repo: str | None) -> str:
    rows = []
    for step in report.steps:
        tag = code(step_tag(step.step))
        if every_step and repo:
            tag = f"[{tag}](/{repo}/tree/{step_tag(step.step)})"
        rows.append([str(step.step), _model_link(step.reference, step.commit), code(short_commit(step.commit)), tag])
    base = report.base_model
    start = ["", _model_link(base.reference, base.commit), code(short_commit(base.commit)), "base model"]
    text = "In this order, each at exactly this commit:\n\n"
    text += table(["step", "checkpoint", "commit", "tag"], [start, *rows], "rlll")
    if report.parameters:
        values = ", ".join(f"{code(key)} = {code(value)}" for key, value in sorted(report.parameters.items()))
        text += f"\n\nParameters of {code(report.merge_method)}: {values}."
    return text


def _scores(report: RunReport, tasks: list[TaskReport], picture: str | None) -> list[str]:
    matrix, last = report.accuracy_matrix(), report.steps[-1]
    base, own = report.main_scores(report.base_scores), report.main_scores(report.own_scores)
    merged = report.main_scores(last.scores)
    rows = []
    for task in tasks:
        values = [percent(scores.get(task.name)) for scores in (base, own, merged)]
        examples = "" if task.examples is None else f"{task.examples:,}"
        rows.append([plain(task.name), _dataset(task), examples, plain(task.main_metric), *values])
    averages = [_average([scores.get(task.name) for task in tasks]) for scores in (base, own, merged)]
    rows.append(["**average**", "", "", "", *(f"**{value}**" for value in averages)])
    header = ["task", "dataset", "examples", "metric", "base model", "own checkpoint", "this model"]
    parts = [
        "In percent. *Own checkpoint* is each task's own fine-tuned checkpoint, not merged with anything.",
        table(header, rows, "llrlrrr"),
    ]
    measures = [
        ("Average accuracy", percent(matrix.average(last.step)), AVERAGE_ACCURACY_DEFINITION),
        ("Backward transfer", percent(matrix.backward_transfer(), "+"), BACKWARD_TRANSFER_DEFINITION),
        ("Forgetting", percent(matrix.forgetting()), FORGETTING_DEFINITION),
        ("Share kept", percent(matrix.share_of_own(own)), SHARE_OF_OWN_DEFINITION),
    ]
    parts.append(table(["measure", "value", "definition"], [[a, b, code(c)] for a, b, c in measures], "lrl"))
    if picture is not None:
        parts.append(f"![Accuracy on every task after every step]({picture})")
    if len(matrix.steps) > 1:
        parts.append(_matrix(report))
    parts += _other_metrics(report)
    return parts


def _matrix(report: RunReport) -> str:
    matrix = report.accuracy_matrix()
    tasks = matrix.seen(matrix.steps[-1])
    rows = [
        [str(step), *(percent(matrix.value(step, task)) for task in tasks), percent(matrix.average(step))]
        for step in matrix.steps
    ]
    content = table(["step", *map(plain, tasks), "average"], rows, "r" * (len(tasks) + 2))
    return details("The accuracy matrix as numbers (row: after step t, column: task)", content)


def _other_metrics(report: RunReport) -> list[str]:
    """A table of the metrics that are not in the accuracy matrix, if there are any."""
    rows = [
        [plain(task), plain(metric), *("-" if value is None else f"{value:.4f}" for value in values)]
        for task, metric, values in report.other_metrics()
    ]
    header = ["task", "metric", "base model", "own checkpoint", "this model"]
    return [details("Other metrics", table(header, rows, "llrrr"))] if rows else []


def _recipe(recipe_text: str) -> str:
    return details("<code>hubmerge.yaml</code>, as it was written", block(recipe_text, "yaml"))


def _again(report: RunReport, repo: str | None) -> str:
    lines = ["pip install hubmerge"]
    before = "Where the recipe names folders by relative paths, put it back where it lay first."
    if repo is not None:
        tag = step_tag(report.steps[-1].step)
        lines.append(f"hf download {repo} {RECIPE_FILE} {LOCK_FILE} --revision {tag} --local-dir .")
        before = (
            "Before the last command, set `publish: {repo: ...}` in the recipe to a repo of your own, or remove it."
        )
    lines.append("hubmerge run hubmerge.yaml --out merged")
    versions = ", ".join(f"{plain(name)} {plain(version)}" for name, version in sorted(report.versions.items()))
    made = f" This model was made with {versions}." if versions else ""
    return (
        f"{before}\n\n{block(chr(10).join(lines), 'bash')}\n\nThe lock holds the commit of every model and dataset; "
        f"`hubmerge.json` every figure of every step.{made}"
    )


def _model_link(reference: str, commit: str) -> str:
    repos = repos_of(reference)
    return repo_link(reference, repos[0], commit) if repos else code(reference)


def _dataset(task: TaskReport) -> str:
    parts = [repo_link(task.dataset, task.dataset, task.commit, kind="dataset")]
    parts.append(code(task.split if task.subset is None else f"{task.subset}/{task.split}"))
    if is_commit(task.commit):
        parts.append(f"at {code(short_commit(str(task.commit)))}")
    return " ".join(parts)


def _average(values: list[float | None]) -> str:
    mean = mean_or_none(values)
    return "-" if mean is None else percent(mean)
