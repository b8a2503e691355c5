"""Check of the card's metadata as the Hub will judge it, before any weight is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hubmerge.cards import merged_card, planned_card
from hubmerge.cards.data import front_matter
from hubmerge.errors import HubmergeError, RecipeError, TargetError
from hubmerge.hub.card_check import refusal_of_card
from hubmerge.hub.offline import is_offline
from hubmerge.plan.licenses import PlannedLicenses
from hubmerge.plan.target_files import TargetFiles
from hubmerge.report.report import ModelReport, RunReport, StepReport, TaskReport
from hubmerge.stream.sources import files_of
from hubmerge.stream.stream import Stream
from hubmerge.support.card_rules import metadata_errors
from hubmerge.support.names import CARD_FILE
from hubmerge.support.text import listed
from merge_recipes import Problem
from merge_recipes.license_rules import UNLISTED
from merge_recipes.licenses import LICENSE_FILES, OTHER


def check_card(stream: Stream, licenses: PlannedLicenses, kept: TargetFiles) -> None:
    """Check the metadata of the planned card by the known rules of the Hub, then by the Hub itself.

    Args:
        stream: The stream.
        licenses: Licenses of the inputs and of the merged model.
        kept: What a run keeps of the target repo, with its card.

    Raises:
        RecipeError: Metadata that come from the recipe or the inputs are not valid.
        TargetError: Metadata that people wrote in the target's card are not valid.
        HubError: The Hub does not respond.
    """
    publish = stream.recipe.publish
    if publish is None:
        return
    generated = planned_card(
        _planned_report(stream), name=publish.repo, merged=licenses.merged, tags=tuple(publish.tags)
    )
    text = merged_card(generated, kept.card, sets_license=bool(publish.license))
    problems = [*_license_problems(stream, licenses), *_metadata_problems(stream, generated)]
    if problems:
        raise RecipeError(problems)
    added = [error for error in _errors(text) if error not in _errors(generated)]
    if added:
        raise _refused_card(stream, f"the Hub does not accept its metadata: {listed(added)}")
    refusal = None if is_offline() else refusal_of_card(text, publish.repo)
    if refusal is not None and kept.card is not None and refusal_of_card(generated, publish.repo) is None:
        raise _refused_card(stream, refusal)
    if refusal is not None:
        hint = "change `publish:` as the Hub says, for example `license` or `tags`"
        raise RecipeError(stream.loaded.document.problem(("publish",), refusal, hint, at_key=True))


def _license_problems(stream: Stream, licenses: PlannedLicenses) -> Iterator[Problem]:
    publish, merged = stream.recipe.publish, licenses.merged
    document = stream.loaded.document
    if OTHER in merged.identifiers and not (merged.name and merged.link):
        message = "`license: other` needs a license_name and a license_link"
        yield document.problem(("publish", "license"), message, f"write `publish: {{{UNLISTED}, ...}}`")
    link = publish.license_link if publish is not None else None
    if link in LICENSE_FILES and link not in _files(stream):
        message = f"neither the base model nor the target repo has a file {link}"
        hint = f"add {link} to the target repo, or write the web address of the license"
        yield document.problem(("publish", "license_link"), message, hint)


def _files(stream: Stream) -> set[str]:
    """Return the files that the base model and the target repo have."""
    copied = {stream.base.name_of(file) for file in files_of(stream.base, auxiliary=True)}
    return copied | set(stream.target.files if stream.target is not None else ())


def _metadata_problems(stream: Stream, card: str) -> Iterator[Problem]:
    for error in _errors(card):
        key = error.removeprefix('"').partition('"')[0].partition("[")[0]
        yield stream.loaded.document.problem(("publish", key), f"the Hub does not accept the card: {error}")


def _errors(card: str) -> list[str]:
    metadata: dict[str, Any] = json.loads(json.dumps(front_matter(card), default=str, skipkeys=True))
    return metadata_errors(metadata)


def _refused_card(stream: Stream, cause: str) -> HubmergeError:
    target = stream.target
    repo, head = (target.repo, target.head) if target is not None else (None, None)
    return TargetError(
        f"{CARD_FILE} of target repo {repo}: {cause}",
        hint=f"correct the metadata at the top of {CARD_FILE} there, then run again",
        repo=repo,
        commit=head,
        file=CARD_FILE,
    )


def _planned_report(stream: Stream) -> RunReport:
    """Return a report of all steps as if each task had the score 0."""
    tasks = stream.recipe.scored_tasks
    scores: dict[str, Any] = {task.name: dict.fromkeys(task.metrics, 0.0) for task in tasks}
    return RunReport(
        base_model=ModelReport(str(stream.lock.base_model.reference), stream.base.commit),
        merge_method=stream.recipe.merge_method,
        recipe_digest=stream.lock.recipe,
        tasks=tuple(
            TaskReport(
                name=task.name,
                kind=task.kind,
                step=1,
                dataset=task.dataset.written_path,
                subset=task.dataset.name,
                split=task.dataset.split,
                metrics=tuple(task.metrics),
            )
            for task in tasks
        ),
        steps=tuple(
            StepReport(
                step=step,
                name=model.name,
                reference=str(model.reference),
                commit=model.commit,
                scale=1.0,
                accumulated_norm=0.0,
                task_vector_norm=0.0,
                scores=scores,
            )
            for step, model in enumerate(stream.lock.models, start=1)
        ),
    )
