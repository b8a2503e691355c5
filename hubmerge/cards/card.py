"""Model card of a published step, written from the report."""

from __future__ import annotations

import re

from hubmerge.cards.closing import citation, going_on, limits, recipe, reproduction, task_kinds
from hubmerge.cards.combined import combined_notes, has_tag
from hubmerge.cards.data import LISTED_DATASETS, form_comment
from hubmerge.cards.details import ORDERED_FOR_READERS, WITH_PAGE, CardDetails
from hubmerge.cards.joint import joint_notes, joint_summary, layers_table
from hubmerge.cards.licenses import license_section
from hubmerge.cards.loading import Loading, loading_text
from hubmerge.cards.markup import code, details, plain, repo_link, shown_rows, table
from hubmerge.cards.metadata import front_matter, repos_of, scored_tasks
from hubmerge.cards.norms import norms
from hubmerge.cards.parts import heads_text, modules_text
from hubmerge.cards.scores import folded_scores, gains, headline, in_model, score_parts
from hubmerge.cards.stages import stages_section
from hubmerge.report.report import RunReport, StepReport, TaskReport
from hubmerge.support.names import LOCK_FILE, step_tag
from hubmerge.support.text import short_commit

__all__ = ["CardDetails", "card_text"]


def card_text(report: RunReport, card: CardDetails) -> str:
    """Return the text of README.md for the last step of a report.

    Raises:
        ValueError: the report has no step.
    """
    if not report.steps:
        raise ValueError("a card needs a report with at least one step")
    report = report if card.whole else report.abridged()
    tasks = scored_tasks(report)
    card = card.for_tasks(tasks)
    name = (card.repo or f"{report.base_model.reference}-{report.merge_method}").split("/")[-1]
    older = card.form <= LISTED_DATASETS
    head = front_matter(
        report,
        model_name=name,
        model_license=card.license,
        tags=card.tags,
        pipeline_tag=card.pipeline_tag,
        library_name=card.library,
        lists_datasets=older,
        whole=card.whole,
    )
    write = _older_sections if card.form < ORDERED_FOR_READERS else _sections
    parts = [f"# {plain(name)}", *write(report, tasks, card)]
    return f"---\n{form_comment()}\n{head}\n---\n\n" + "\n\n".join(parts) + "\n"


def _sections(report: RunReport, tasks: list[TaskReport], card: CardDetails) -> list[str]:
    """Return the sections in the order in which people look for them; what few people read is folded."""
    source = None if card.method_source is None else _linked_papers(card.method_source)
    matrix = report.accuracy_matrix(counts_all=card.counts_all)
    found = [_summary(report, card), *headline(report, tasks, matrix)]
    if tasks and card.picture is not None:
        found.append(f"![Accuracy on every task after every step]({card.picture})")
    found += _page_link(card) if card.form >= WITH_PAGE else []
    found += ["## How to use it", *_use(report, card)]
    if tasks:
        found += ["## Gains and losses", gains(report, tasks, matrix)]
        found += folded_scores(report, tasks, matrix, kinds=_kinds(tasks, report, card))
    found += ["## What was merged", _merged(report, card), *layers_table(report), *combined_notes(report)]
    found += stages_section(report, _model_link)
    found += license_section(report, card.license, notice=card.notice)
    found += ["## Limits and intended use", limits(report, in_model(tasks, matrix))]
    found += [
        "## Verify, extend, reproduce",
        going_on(report, card),
        details("Merge it again", reproduction(report, card)),
    ]
    found += ["## Citation", citation(report, source)]
    if not report.is_joint:
        found += [
            "## Statistics and recipe",
            details("Norms, ranks and similarities of the steps", norms(report, warns=False)),
        ]
    return [*found, recipe(card)]


def _page_link(card: CardDetails) -> list[str]:
    if card.page is None:
        return []
    contents = "all numbers of this step, with curves, similarities, layers, recipe and lock"
    return [f"[`{card.page}`]({card.page}) shows {contents}. Download it and open it in a browser: it loads nothing."]


def _older_sections(report: RunReport, tasks: list[TaskReport], card: CardDetails) -> list[str]:
    """Return the sections as cards before form 6 have them."""
    older = card.form <= LISTED_DATASETS
    found = [_summary(report, card), "## How to load it", *_use(report, card)]
    found += ["## Merged checkpoints", _merged(report, card), *layers_table(report)]
    found += [] if older else license_section(report, card.license, notice=card.notice)
    found += joint_notes(report)
    found += [] if report.is_joint else ["## Statistics of the steps", norms(report, whole=card.whole)]
    if tasks:
        parts = score_parts(report, tasks, picture=card.picture, kinds=_kinds(tasks, report, card), whole=card.whole)
        found += ["## Scores", *parts]
    return [*found, "## Recipe", recipe(card), "## How to reproduce it", reproduction(report, card)]


def _kinds(tasks: list[TaskReport], report: RunReport, card: CardDetails) -> str:
    return task_kinds(tasks, [(kind, _origin(kind, report, card)) for kind in sorted(card.distributions)])


def _use(report: RunReport, card: CardDetails) -> list[str]:
    layout = [f"Weight files: {plain(card.layout)}."] if card.layout else []
    heads = heads_text(card.heads, card.repo, step_tag(report.steps[-1].step))
    return [_loading(report, card), *modules_text(card.modules), *layout, *heads]


def _summary(report: RunReport, card: CardDetails) -> str:
    revoked = sum(step.revokes is not None for step in report.steps)
    count, base = len(report.steps) - 2 * revoked, _model_link(report.base_model.reference, report.base_model.commit)
    method = f"the method {code(report.merge_method)}{_origin(report.merge_method, report, card)}"
    if card.method_source:
        method += f" ({_linked_papers(card.method_source)})"
    if report.is_joint:
        text = joint_summary(report, base, method)
    elif count == 1:
        text = (
            f"This model was made from 1 fine-tuned checkpoint of {base} by hubmerge with {method}. It is the first "
            "step of a stream: later steps merge more checkpoints into it."
        )
    else:
        text = (
            f"This model merges {count} fine-tuned checkpoints of {base} into one model of the same size, without "
            f"training. They were merged one after another by hubmerge with {method}."
        )
    text += f" The chat template is {card.chat_template}." if card.chat_template is not None else ""
    text += _taken_out(report)
    return text if card.repo is None else f"{text} The tag of this step is {code(step_tag(report.steps[-1].step))}."


def _taken_out(report: RunReport) -> str:
    """Return the sentences about entries that were taken out again, and about newer commits in their places."""
    replaced = {name for step in report.steps for name in step.replaces}
    out = [step.revokes for step in report.steps if step.revokes is not None and step.revokes not in replaced]
    text = ""
    for step in report.steps:
        if step.replaces:
            names = " and ".join(map(code, step.replaces))
            text += (
                f" {code(step.name)}, a newer commit, took the place of {names}: no trace of the older one is left in "
                "the weights."
            )
    if out:
        names = " and ".join(map(code, out))
        text += f" {names} {'was' if len(out) == 1 else 'were'} taken out again: no trace is left in the weights."
    return text


def _origin(name: str, report: RunReport, card: CardDetails) -> str:
    """Return " of `distribution` version" for a plug-in, an empty text for anything else."""
    distribution = card.distributions.get(name)
    if distribution is None:
        return ""
    return f" of {_distribution(distribution, report)}"


def _distribution(name: str, report: RunReport) -> str:
    return f"{code(name)} {plain(report.versions.get(name, ''))}".rstrip()


def _linked_papers(source: str) -> str:
    """Return the source of a method, with links to papers that it names by arXiv number."""
    return re.sub(r"arXiv&#58;(\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", plain(source))


def _loading(report: RunReport, card: CardDetails) -> str:
    facts = Loading(
        library=card.library,
        repo=card.repo,
        tag=step_tag(report.steps[-1].step),
        model_class=card.model_class,
        processor_class=card.processor_class,
        variant=card.variant,
        pipeline_tag=card.pipeline_tag,
        base=report.base_model.reference,
        base_commit=report.base_model.commit,
    )
    return loading_text(facts)


def _merged(report: RunReport, card: CardDetails) -> str:

    def row(step: StepReport) -> list[str]:
        tag = code(step_tag(step.step))
        if not has_tag(report, step):
            tag = "-"
        elif card.every_step and card.repo:
            tag = f"[{tag}](/{card.repo}/tree/{step_tag(step.step)})"
        link = _model_link(step.reference, step.commit)
        if step.revokes is not None:
            link += " (taken out)"
        elif step.replaces:
            link += f" (in place of {', '.join(map(plain, step.replaces))})"
        return [str(step.step), link, code(short_commit(step.commit)), tag]

    rows = shown_rows(report.steps, row, whole=card.whole)
    if report.is_joint:
        tag = row(report.steps[-1])[-1]
        models = [(_model_link(one.reference, one.commit), code(short_commit(one.commit))) for one in report.models]
        rows = [[str(report.steps[-1].step), *model, tag] for model in models]
    base = report.base_model
    start = ["", _model_link(base.reference, base.commit), code(short_commit(base.commit)), "base model"]
    text = "The checkpoints in merge order, each with its commit:\n\n"
    if len(rows) < len(report.steps):
        text = f"The first and the last checkpoints in merge order; `{LOCK_FILE}` has all of them:\n\n"
    text += table(["step", "checkpoint", "commit", "tag"], [start, *rows], "rlll")
    if report.parameters:
        values = ", ".join(f"{code(key)} = {code(value)}" for key, value in sorted(report.parameters.items()))
        text += f"\n\nParameters of {code(report.merge_method)}: {values}."
    text += _read_out(report.steps[-1])
    if report.state_dtype != "float64":
        text += f"\n\nThe state is kept and published in {report.state_dtype}, rounded after every step."
    return text


def _read_out(step: StepReport) -> str:
    """Return how the read-out of the merged model was chosen; an empty text if the recipe left no choice."""
    read = step.read
    choice = None if read is None else read.choice
    if read is None or choice is None:
        return ""
    data = f"{code(read.split)} of {code(read.dataset)}"
    note = " The task is scored too, so its score is favored by the choice." if read.scored else ""
    values = "; ".join(f"{code(one.text)} {one.score:.4f}" for one in read.readings)
    return (
        f"\n\nThe merged model was read out of the state by {code(choice.text)}, the best of "
        f"{len(read.readings)} by {plain(read.metric)} on the task {code(read.task)} ({data}): {values}.{note}"
    )


def _model_link(reference: str, commit: str) -> str:
    repos = repos_of(reference)
    return repo_link(reference, repos[0], commit) if repos else code(reference)
