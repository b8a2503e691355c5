"""Datasets of the tasks of lm-evaluation-harness: which one a task reads, so that a recipe can pin its commit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.external_metrics import ALLOWED_VARIABLE
from hubmerge.evaluation.harness_index import HarnessTask, find_harness_task, members_of
from hubmerge.support.text import listed
from merge_recipes import DatasetReference, Task
from merge_recipes.language_task import HARNESS_KIND

_IGNORED = frozenset({"trust_remote_code", "revision"})
"""Options for loading a dataset that have no effect here: no code of a dataset runs, and the recipe has the commit."""


MAX_SHOWN_MEMBERS = 60
"""Members of a group that a message lists at most."""


@dataclass(frozen=True)
class HarnessSource:
    """Dataset of one task of the harness, as its definition names it."""

    path: str
    name: str | None
    split: str
    revision: str | None = None


def harness_dataset(name: str) -> dict[str, str]:
    """Return the keys of the dataset of an installed task or group, as a recipe has them.

    Raises:
        EvaluationError: there is no such task, or its data cannot be pinned.
    """
    # Names are looked up as they are in a recipe; this dataset is not read.
    found = find_harness_task(
        Task.model_validate({"name": "x", "kind": HARNESS_KIND, "task": name, "dataset": {"path": "x/y"}})
    )
    sources = [source_of(leaf, keys) for leaf, keys in found.leaves.items()]
    _check_one_dataset(found, sources)
    first, names = sources[0], {one.name for one in sources}
    keys = {"path": first.path, "name": first.name if len(names) == 1 else None, "revision": first.revision}
    keys["split"] = first.split if first.split != DatasetReference.model_fields["split"].default else None
    return {key: value for key, value in keys.items() if value is not None}


def _check_one_dataset(found: HarnessTask, sources: Sequence[HarnessSource]) -> None:
    """Refuse a group whose tasks have several datasets or splits: a task of a recipe has one.

    Raises:
        EvaluationError: it has several; the hint is a task for the recipe and names the other members.
    """
    paths, splits = sorted({one.path for one in sources}), sorted({one.split for one in sources})
    if len(paths) == len(splits) == 1:
        return
    first, *others = members_of(found)
    hint = f"write one task for each member: `- {{name: {first}, kind: {HARNESS_KIND}, task: {first}}}`"
    raise EvaluationError(
        f"the group {found.name} of lm-evaluation-harness has "
        + (f"{len(paths)} datasets: {listed(paths, 4)}" if len(paths) > 1 else f"the splits {splits}"),
        hint=f"{hint}, and the same for {listed(others, MAX_SHOWN_MEMBERS)}" if others else hint,
    )


def source_of(leaf: str, keys: Mapping[str, Any]) -> HarnessSource:
    """Return the dataset of a definition.

    Raises:
        EvaluationError: it reads its data with code or with options, so that no commit could be pinned.
    """
    reason = next(_reasons(keys), None)
    if reason is not None:
        raise EvaluationError(
            f"the task {leaf} of lm-evaluation-harness {reason}", hint="choose another task, or define one in a file"
        )
    options = keys.get("dataset_kwargs") or {}
    split = next((keys[one] for one in ("test_split", "validation_split") if keys.get(one)), None)
    if split is None:
        raise EvaluationError(
            f"the task {leaf} of lm-evaluation-harness has no split to score", hint="choose another task"
        )
    return HarnessSource(str(keys["dataset_path"]), keys.get("dataset_name") or None, split, options.get("revision"))


def _reasons(keys: Mapping[str, Any]) -> Iterator[str]:
    """Yield why a task cannot be scored with pinned data and without code that a model wrote."""
    if "class" in keys or "custom_dataset" in keys:
        yield "reads its data with code of its own: no commit could be pinned"
    if not keys.get("dataset_path"):
        yield "names no dataset"
    other = sorted(set(keys.get("dataset_kwargs") or {}) - _IGNORED)
    if other:
        yield f"reads its data with the option {other[0]}, which is not supported"
    if keys.get("unsafe_code"):
        yield "runs code that the model writes, which is not supported"
    allowed = os.environ.get(ALLOWED_VARIABLE, "").split(",")
    listed_metrics = [one for one in keys.get("metric_list") or () if isinstance(one, dict) and one.get("hf_evaluate")]
    loaded = next((str(one["metric"]) for one in listed_metrics if str(one["metric"]) not in allowed), None)
    if loaded is not None:
        yield f"loads the metric {loaded} from the Hub, code of no pinned commit ({ALLOWED_VARIABLE} can allow it)"
    if keys.get("doc_to_image") or keys.get("doc_to_audio"):
        yield "has images or sounds, which is not supported"


def preview_source(task: Task) -> DatasetReference:
    """Return the dataset whose columns and rows are looked at before a run: of a group, that of its first task.

    Raises:
        EvaluationError: the task is unknown, or its data cannot be pinned.
    """
    found = find_harness_task(task)
    leaf, keys = next(iter(found.leaves.items()))
    return task.dataset.model_copy(update={"name": task.dataset.name or source_of(leaf, keys).name})


def dataset_problems(task: Task, found: HarnessTask) -> Iterator[EvaluationError]:
    """Yield the mistakes in the dataset of a recipe's task: it must be the one that the harness reads."""
    try:
        sources = {leaf: source_of(leaf, keys) for leaf, keys in found.leaves.items()}
        _check_one_dataset(found, [*sources.values()])
    except EvaluationError as error:
        yield EvaluationError(f"task {task.name}: {error.message}", hint=error.hint)
        return
    names = {source.name for source in sources.values()}
    for leaf, source in sources.items():
        given = task.dataset
        for key, own, value in (("path", source.path, given.written_path), ("split", source.split, given.split)):
            if own != value:
                message = (
                    f"task {task.name}: {leaf} of lm-evaluation-harness has the {key} {own!r}, the recipe {value!r}"
                )
                yield EvaluationError(message, hint=f"set `dataset: {{{key}: {own}}}`")
                return
    expected = next(iter(names)) if len(names) == 1 else None
    if task.dataset.name != expected:
        hint = "remove the key `name` of the dataset" if expected is None else f"set `dataset: {{name: {expected}}}`"
        yield EvaluationError(
            f"task {task.name}: {found.name} does not read the subset {task.dataset.name!r}", hint=hint
        )
