"""Last sections of a card: limits, how to check and go on, citations, recipe."""

from __future__ import annotations

from collections.abc import Sequence

from hubmerge.cards.details import LONGEST_RECIPE, CardDetails
from hubmerge.cards.markup import block, code, details, plain
from hubmerge.report.accuracy import percent
from hubmerge.report.report import RunReport, TaskReport
from hubmerge.report.shown import FIRST_SHOWN, LAST_SHOWN, shown
from hubmerge.support.names import HISTORY_FOLDER, LOCK_FILE, RECIPE_FILE, REPORT_FILE, step_tag

_MIXED = (
    "Merging mixes all that the checkpoints learned, errors, biases and backdoors included. Nothing was trained, "
    "filtered or aligned afterwards."
)


def limits(report: RunReport, tasks: Sequence[TaskReport]) -> str:
    """Return what the model is for, and what nobody has tried."""
    lines = ["It is meant for the tasks of its checkpoints, and for merging further checkpoints into it."]
    if tasks:
        lines.append("Scores were measured on the data sets named above alone, at the pinned commits.")
        lines += _largest_loss(report, tasks)
    else:
        lines.append("No task was scored: nobody has measured what this model can do.")
    steps = [step for part in shown(report.steps) for step in part]
    warnings = [f"Step {step.step}: {plain(text)}." for step in steps for text in step.warnings]
    return "\n".join(f"- {line}" for line in [*lines, _MIXED, *warnings])


def _largest_loss(report: RunReport, tasks: Sequence[TaskReport]) -> list[str]:
    own, merged = report.main_scores(report.own_scores), report.main_scores(report.steps[-1].scores)
    names = [task.name for task in tasks if task.name in own and task.name in merged]
    if not names:
        return []
    loss, name = max((own[name] - merged[name], name) for name in names)
    if loss <= 0:
        return []
    return [f"Its largest loss against an own checkpoint is {percent(loss)} points, on {plain(name)}."]


def going_on(report: RunReport, card: CardDetails) -> str:
    """Return how to verify the step, to extend the stream and to take a checkpoint out."""
    if card.repo is None:
        return f"{_installation(report, card)}\n\n" + block("hubmerge verify path/to/this/folder", "bash")
    tag = step_tag(report.steps[-1].step)
    commands = [f"hubmerge verify {card.repo}@{tag}", f"hubmerge report {card.repo}@{tag}"]
    if card.revocable:
        commands.append(f"hubmerge revoke {card.repo} NAME")
    meanings = (
        "The first merges all steps again and compares every tensor and score; the second writes the report as a page"
    )
    meanings += "; the third publishes a step in which a checkpoint was never merged." if card.revocable else "."
    extend = f"To extend the stream, add a model to the end of [`{RECIPE_FILE}`]({RECIPE_FILE}) and run it again."
    return f"{_installation(report, card)}\n\n{block(chr(10).join(commands), 'bash')}\n\n{meanings} {extend}"


def citation(report: RunReport, source: str | None) -> str:
    """Return what to cite: the models, the method, hubmerge.

    Args:
        report: the report.
        source: the source of the method, with links; None if unknown.
    """
    version = plain(report.versions.get("hubmerge", ""))
    method = f"the method {code(report.merge_method)}" + (f", {source}" if source else "")
    return f"Cite the merged models by the links above, {method}, and " + f"hubmerge {version}".rstrip() + "."


def task_kinds(tasks: Sequence[TaskReport], origins: Sequence[tuple[str, str]]) -> str:
    """Return a sentence for each task kind that is a plug-in.

    Args:
        tasks: the scored tasks.
        origins: the kinds that are plug-ins, each with its origin in words.
    """
    scored = {task.kind for task in tasks}
    return " ".join(f"The task kind {code(kind)} is that{origin}." for kind, origin in origins if kind in scored)


def recipe(card: CardDetails) -> str:
    """Return the recipe in a fold, or a link to it if it is long."""
    if len(card.recipe_text) > LONGEST_RECIPE and not card.whole:
        return f"The recipe is in [`{RECIPE_FILE}`]({RECIPE_FILE})."
    return details(f"<code>{RECIPE_FILE}</code>", block(card.recipe_text, "yaml"))


def reproduction(report: RunReport, card: CardDetails) -> str:
    """Return how to merge the model again from the published recipe and lock."""
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
    text = (
        f"`{LOCK_FILE}` pins the commit of every model and dataset. `{REPORT_FILE}` contains the statistics and scores "
        f"of {contained}." + (f" This model was made with {versions}." if versions else "")
    )
    return f"{_installation(report, card)} {before}\n\n{block(chr(10).join(lines), 'bash')}\n\n{text}"


def _installation(report: RunReport, card: CardDetails) -> str:
    needed = ["hubmerge", *_plugins(report, card)]
    install = " and ".join(f"{plain(name)} {plain(report.versions.get(name, ''))}".rstrip() for name in needed)
    return (
        f"Install {install} from where its authors publish it: a package index may have another package of that name."
    )


def _plugins(report: RunReport, card: CardDetails) -> list[str]:
    """Return the distributions of plug-ins whose version the report has."""
    return sorted(name for name in set(card.distributions.values()) if name in report.versions)
