"""Model card of a published step, written from the report."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hubmerge.cards.data import CARD_FORM, LISTED_DATASETS, form_comment
from hubmerge.cards.joint import joint_notes, joint_summary
from hubmerge.cards.licenses import license_section
from hubmerge.cards.loading import ZERO_SHOT, Loading, loading_text
from hubmerge.cards.markup import block, code, details, plain, repo_link, shown_rows, table
from hubmerge.cards.metadata import front_matter, repos_of, scored_tasks
from hubmerge.cards.norms import norms
from hubmerge.cards.parts import HeadFacts, ModuleFacts, heads_text, modules_text
from hubmerge.cards.scores import score_parts
from hubmerge.report.licenses import NO_LICENSE, License
from hubmerge.report.report import RunReport, StepReport, TaskReport
from hubmerge.report.shown import FIRST_SHOWN, LAST_SHOWN
from hubmerge.support.names import HISTORY_FOLDER, LOCK_FILE, PICTURE_FILE, RECIPE_FILE, REPORT_FILE, step_tag
from hubmerge.support.text import short_commit

TEXT_KINDS = frozenset({"text-classification", "causal-lm"})

ABRIDGED = 3
"""First form of cards that show the first and last steps of long streams alone."""

LONGEST_RECIPE = 16_000
"""Number of characters up to which a card contains the recipe."""


@dataclass(frozen=True)
class CardDetails:
    """Facts of a card that are not in the report.

    Attributes:
        recipe_text: the text of the recipe.
        repo: the repo that the model is published to, None for a folder on this machine.
        license: the license of the model.
        notice: True if the file NOTICE lists the licenses of the inputs.
        tags: more tags for the Hub.
        library: the library that loads the model; None if there are several.
        variant: the variant in the names of the weight files, such as "fp16".
        heads: the heads of the checkpoints.
        modules: the modules of sentence-transformers.
        model_class: the class of the model.
        processor_class: the transformers class of its processor; None for a tokenizer or nothing.
        pipeline_tag: the kind of task of the model, None to take it from the scored tasks.
        layout: class, tensor names and dtypes of the weight files, in words.
        picture: the file with the picture of the accuracy matrix, None if there is none.
        every_step: True if earlier steps are published too.
        method_source: the description of the method, such as "arXiv:2501.09522, Section 4".
        distributions: the distribution of each merge method and task kind that is a plug-in, by its name.
        form: the form of the data: an older one for comparison with a card of that form.
    """

    recipe_text: str
    repo: str | None = None
    license: License = NO_LICENSE
    notice: bool = False
    tags: tuple[str, ...] = ()
    library: str | None = "transformers"
    variant: str | None = None
    heads: tuple[HeadFacts, ...] = ()
    modules: tuple[ModuleFacts, ...] = ()
    model_class: str = "AutoModel"
    processor_class: str | None = "AutoProcessor"
    pipeline_tag: str | None = None
    layout: str | None = None
    picture: str | None = PICTURE_FILE
    every_step: bool = True
    method_source: str | None = None
    distributions: Mapping[str, str] = field(default_factory=dict)
    form: int = CARD_FORM

    @property
    def whole(self) -> bool:
        """True for all steps and tasks, as in cards before form 3, however many there are."""
        return self.form < ABRIDGED

    def for_tasks(self, tasks: list[TaskReport]) -> CardDetails:
        """Return the details with the pipeline tag and the tokenizer that the scored tasks imply."""
        kinds = {task.kind for task in tasks}
        found = self
        if found.pipeline_tag in found.distributions:  # the Hub does not know the kinds of plug-ins
            found = replace(found, pipeline_tag=None)
        if found.pipeline_tag is None and found.library == "sentence-transformers":
            found = replace(found, pipeline_tag="sentence-similarity")
        if found.pipeline_tag is None and kinds == {ZERO_SHOT}:
            found = replace(found, pipeline_tag=ZERO_SHOT)
        if found.processor_class is None and kinds and kinds <= TEXT_KINDS:
            found = replace(found, processor_class="AutoTokenizer")
        return found


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
    sections = [
        f"# {plain(name)}",
        _summary(report, card),
        "## How to load it",
        _loading(report, card),
        *modules_text(card.modules),
        *([f"Weight files: {plain(card.layout)}."] if card.layout else []),
        *heads_text(card.heads, card.repo, step_tag(report.steps[-1].step)),
        "## Merged checkpoints",
        _merged(report, card),
        *([] if older else license_section(report, card.license, notice=card.notice)),
        *joint_notes(report),
        *([] if report.is_joint else ["## Statistics of the steps", norms(report, whole=card.whole)]),
    ]
    sections += _scores(report, tasks, card) if tasks else []
    sections += ["## Recipe", _recipe(card), "## How to reproduce it", _reproduction(report, card)]
    return f"---\n{form_comment()}\n{head}\n---\n\n" + "\n\n".join(sections) + "\n"


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
        if card.every_step and card.repo:
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
    return text


def _scores(report: RunReport, tasks: list[TaskReport], card: CardDetails) -> list[str]:
    kinds = _kinds(report, tasks, card)
    return ["## Scores", *score_parts(report, tasks, picture=card.picture, kinds=kinds, whole=card.whole)]


def _kinds(report: RunReport, tasks: list[TaskReport], card: CardDetails) -> str:
    """Return a sentence for each task kind that is a plug-in."""
    kinds = sorted({task.kind for task in tasks} & set(card.distributions))
    return " ".join(f"The task kind {code(kind)} is that{_origin(kind, report, card)}." for kind in kinds)


def _recipe(card: CardDetails) -> str:
    if len(card.recipe_text) > LONGEST_RECIPE and not card.whole:
        return f"The recipe is in [`{RECIPE_FILE}`]({RECIPE_FILE})."
    return details(f"<code>{RECIPE_FILE}</code>", block(card.recipe_text, "yaml"))


def _reproduction(report: RunReport, card: CardDetails) -> str:
    needed = ["hubmerge", *_plugins(report, card)]
    install = " and ".join(f"{plain(name)} {plain(report.versions.get(name, ''))}".rstrip() for name in needed)
    lines = []
    before = "If the recipe names folders by relative paths, copy it to its original place first."
    if card.repo is not None:
        tag = step_tag(report.steps[-1].step)
        lines.append(f"hf download {card.repo} {RECIPE_FILE} {LOCK_FILE} --revision {tag} --local-dir .")
        before = (
            "Before the last command, change `publish: {repo: ...}` in the recipe to a repo of your own, or remove it."
        )
    lines.append(f"hubmerge run {RECIPE_FILE} --out merged")
    hidden = len(report.steps) > FIRST_SHOWN + LAST_SHOWN and not card.whole
    contained = f"the last steps, `{HISTORY_FOLDER}/` those of every step" if hidden else "every step"
    versions = ", ".join(f"{plain(name)} {plain(version)}" for name, version in sorted(report.versions.items()))
    return (
        f"Install {install} from where its authors publish it: a package index may have another package of that name. "
        f"{before}\n\n{block(chr(10).join(lines), 'bash')}\n\n`{LOCK_FILE}` pins the commit of every model and "
        f"dataset. `{REPORT_FILE}` contains the statistics and scores of {contained}."
        + (f" This model was made with {versions}." if versions else "")
    )


def _plugins(report: RunReport, card: CardDetails) -> list[str]:
    """Return the distributions of plug-ins whose version the report has."""
    return sorted(name for name in set(card.distributions.values()) if name in report.versions)


def _model_link(reference: str, commit: str) -> str:
    repos = repos_of(reference)
    return repo_link(reference, repos[0], commit) if repos else code(reference)
