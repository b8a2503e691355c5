"""Datasets of the tasks of lm-evaluation-harness: which ones a task reads, so that a recipe can pin their commits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.external_metrics import ALLOWED_VARIABLE
from hubmerge.evaluation.harness_index import HarnessTask, find_harness_task
from hubmerge.support.text import listed
from merge_recipes import DatasetReference, Task
from merge_recipes.language_task import HARNESS_KIND

_IGNORED = frozenset({"trust_remote_code", "revision"})
"""Options for loading a dataset that have no effect here: no code of a dataset runs, and the recipe has the commit."""


@dataclass(frozen=True)
class HarnessSource:
    """Dataset of one task of the harness, as its definition names it."""

    path: str
    name: str | None
    split: str
    revision: str | None = None

    @property
    def keys(self) -> dict[str, str]:
        """The keys of the dataset in a recipe."""
        split = None if self.split == DatasetReference.model_fields["split"].default else self.split
        keys = {"path": self.path, "name": self.name, "revision": self.revision, "split": split}
        return {key: value for key, value in keys.items() if value is not None}

    @property
    def text(self) -> str:
        """The split for messages: path, configuration, split."""
        return " ".join(filter(None, (self.path, self.name, self.split)))


def harness_dataset(name: str) -> dict[str, Any]:
    """Return the keys of the dataset of an installed task or group, as a recipe has them.

    Raises:
        EvaluationError: there is no such task, or its data cannot be pinned.
    """
    # Names are looked up as they are in a recipe; this dataset is not read.
    found = find_harness_task(
        Task.model_validate({"name": "x", "kind": HARNESS_KIND, "task": name, "dataset": {"path": "x/y"}})
    )
    first, *more = sources_of(found)
    return {**first.keys, **({"more": [one.keys for one in more]} if more else {})}


def sources_of(found: HarnessTask) -> tuple[HarnessSource, ...]:
    """Return the splits that a task or group scores, each of them once, in the order of its tasks.

    The configuration of a split is None if tasks read several. A dataset repo has the revision of its first task.

    Raises:
        EvaluationError: the data of a task cannot be pinned.
    """
    splits: dict[tuple[str, str], list[HarnessSource]] = {}
    revisions: dict[str, str] = {}
    for leaf, keys in found.leaves.items():
        source = source_of(leaf, keys)
        splits.setdefault((source.path, source.split), []).append(source)
        if source.revision is not None:
            revisions.setdefault(source.path, source.revision)
    return tuple(
        HarnessSource(path, _common_name([one.name for one in sources]), split, revisions.get(path))
        for (path, split), sources in splits.items()
    )


def _common_name(names: Sequence[str | None]) -> str | None:
    return names[0] if len(set(names)) == 1 else None


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


@dataclass(frozen=True)
class ScoredSplit:
    """A split that a task or group scores.

    Attributes:
        reference: its reference, with the configuration of the first task that scores it.
        tasks: the number of tasks that score it.
        is_whole: False if some of these tasks have another configuration, or choose rows by a function.
    """

    reference: DatasetReference
    tasks: int
    is_whole: bool


def splits_of(task: Task) -> tuple[ScoredSplit, ...]:
    """Return the splits in the dataset of a recipe's task, as its tasks in the harness score them.

    Raises:
        EvaluationError: the task is unknown, or its data cannot be pinned.
    """
    found = find_harness_task(task)
    sources = [(source_of(leaf, keys), "process_docs" in keys) for leaf, keys in found.leaves.items()]
    splits = []
    for given in task.dataset.scored:
        inside = [one for one in sources if (one[0].path, one[0].split) == (given.written_path, given.split)]
        names = [source.name for source, _ in inside]
        reference = given.model_copy(update={"name": given.name or next(iter(names), None)})
        is_whole = len(inside) == 1 or (len(set(names)) == 1 and not any(chooses for _, chooses in inside))
        splits.append(ScoredSplit(reference, len(inside), is_whole))
    return tuple(splits)


def dataset_problems(task: Task, found: HarnessTask) -> Iterator[EvaluationError]:
    """Yield the mistakes in the dataset of a recipe's task: it must be the one that the harness reads."""
    try:
        sources = sources_of(found)
    except EvaluationError as error:
        yield EvaluationError(f"task {task.name}: {error.message}", hint=error.hint)
        return
    if len(sources) > 1 or task.dataset.more:
        yield from _group_problems(task, found, sources)
        return
    own, given = sources[0], task.dataset
    for key, value, other in (("path", own.path, given.written_path), ("split", own.split, given.split)):
        if value != other:
            leaf = next(iter(found.leaves))
            message = f"task {task.name}: {leaf} of lm-evaluation-harness has the {key} {value!r}, the recipe {other!r}"
            yield EvaluationError(message, hint=f"set `dataset: {{{key}: {value}}}`")
            return
    if given.name != own.name:
        hint = "remove the key `name` of the dataset" if own.name is None else f"set `dataset: {{name: {own.name}}}`"
        yield EvaluationError(f"task {task.name}: {found.name} does not read the subset {given.name!r}", hint=hint)


def _group_problems(task: Task, found: HarnessTask, sources: Sequence[HarnessSource]) -> Iterator[EvaluationError]:
    """Yield a mistake if the recipe has other splits than a group reads, in any order."""
    given = {HarnessSource(one.written_path, one.name, one.split).text for one in task.dataset.scored}
    expected = {one.text for one in sources}
    missing, surplus = sorted(expected - given), sorted(given - expected)
    if missing or surplus:
        differences = [f"the recipe does not have {listed(missing, 4)}"] if missing else []
        differences += [f"the group does not read {listed(surplus, 4)}"] if surplus else []
        yield EvaluationError(
            f"task {task.name}: the dataset is not that of the group {found.name} of lm-evaluation-harness: "
            + "; ".join(differences),
            hint="remove the key `dataset` of the task: hubmerge finds everything that the group reads",
        )
