"""Proposal of a recipe for models that somebody wants to merge."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import PurePosixPath

from hubmerge.errors import HubError
from hubmerge.hub.listing import ModelFacts, find_models, model_facts
from merge_recipes import InvalidReferenceError, ModelCollection, ModelQuery, ModelReference

MODELS_READ = 24
"""Models whose cards are read at most, of those that queries and collections find."""

_KINDS = {"zero-shot-image-classification": "image", "text-classification": "text", "image-classification": "image"}
"""Kinds of task that a proposal writes, with the column of their inputs."""

_COLLECTION = re.compile(r"[\w.-]+/[\w.-]+-[0-9a-f]{24}")
_HEAD = """\
# Proposed by `hubmerge init`. Next:
#   hubmerge plan {file}     what a run would download, merge and publish
#   hubmerge run {file} --out merged
"""
_PUBLISH = """
# To publish every step with its card, lock and report:
# publish:
#   repo: your-name/merged
"""


def proposed_recipe(
    base: str,
    models: Sequence[str],
    *,
    file: str,
    method: str | None = None,
    publish: str | None = None,
    remark: str | None = None,
) -> str:
    """Return the text of a recipe with comments. The cards of repos on the Hub are read, weights are not.

    Args:
        base: the reference of the base model.
        models: references of checkpoints, queries such as `me/clip-*`, or slugs of collections.
        file: the name of the file that it will be written to, for its comments.
        method: the merge method, None to choose one.
        publish: the target repo, None for a comment that shows how to publish.
        remark: a comment on the models, such as how they were found.

    Raises:
        HubError: the Hub does not respond.
    """
    found = [one for model in models for one in _found_models(model)]
    facts = {model: _facts(model) for model in dict.fromkeys(found[:MODELS_READ])}
    chosen, reason = (method, "as asked for") if method is not None else _method(found, facts)
    lines = [
        _HEAD.format(file=file),
        f"merge_method: {chosen}   # {reason}",
        f"base_model: {json.dumps(base)}",
        *(() if remark is None else (f"# {remark}",)),
        "models:   # merged in this order; add new ones at the end",
        *(f"  - {_item(model)}" for model in models),
        *_tasks(_facts(base), facts),
        _PUBLISH if publish is None else f"publish:\n  repo: {json.dumps(publish)}\n",
    ]
    return "\n".join(lines)


def _found_models(model: str) -> Sequence[str]:
    """Return the models that an item finds now: itself, or those of a query or a collection, the oldest first."""
    try:
        if _COLLECTION.fullmatch(model):
            return find_models(ModelCollection(collection=model))
        if {"*", "?"} & set(model):
            return find_models(ModelQuery(query=model))
    except (HubError, ValueError):
        return (model,)  # the plan reports the mistake with its place in the recipe
    return (model,)


def _method(models: Sequence[str], facts: Mapping[str, ModelFacts]) -> tuple[str, str]:
    """Choose a method as docs/choose.md does."""
    stems = {re.sub(r"[\d._-]*(seed|run)?[\d._-]*", "", PurePosixPath(model).name) for model in models}
    if len(models) > 1 and len(stems) == 1:
        return "weight_average", "the names differ by numbers alone: checkpoints of one task are averaged"
    if len(models) > 1 and all(
        before.partition("@")[0] in facts.get(after, ModelFacts()).bases for before, after in pairwise(models)
    ):
        return "magmax", "by their cards, each model was fine-tuned from the one before it"
    trained = {facts.get(model, ModelFacts()).datasets for model in models}
    if len(models) > 1 and len(trained) == 1 and min(trained):
        return "weight_average", "the cards name one data set: checkpoints of one task are averaged"
    return "wudi", "no scale to choose, the order does not matter, entries can be revoked"


def _item(model: str) -> str:
    """Return an item of `models`; the check of the recipe finds what is not valid."""
    kind = "collection" if _COLLECTION.fullmatch(model) else "query" if {"*", "?"} & set(model) else "model"
    return f"{kind}: {json.dumps(model)}"


def _facts(model: str) -> ModelFacts:
    try:
        reference = ModelReference.parse(model)
    except InvalidReferenceError:
        return ModelFacts()
    if reference.is_local:
        return ModelFacts()
    return model_facts(reference.path, reference.revision)


def _tasks(base: ModelFacts, models: dict[str, ModelFacts]) -> list[str]:
    """Return tasks as comments, for the data sets that the cards of the models name: columns are not known yet."""
    kind = base.task if base.task in _KINDS else None
    found = [(model, dataset) for model, facts in models.items() for dataset in facts.datasets]
    if kind is None or not found:
        return []
    lines = ["", "# The cards name these data sets. Check splits and columns, then take the marks away:", "# evaluate:"]
    lines.append("#   tasks:")
    for model, dataset in found:
        column = _KINDS[kind]
        lines.append(f"#     - name: {ModelReference.parse(model).short_name}")
        lines.append(f"#       kind: {kind}")
        lines.append(f"#       dataset: {{path: {json.dumps(dataset)}, split: test, {column}: {column}, label: label}}")
        if kind.startswith("zero-shot"):
            lines.append('#       prompts: ["a photo of a {}."]')
    return lines
