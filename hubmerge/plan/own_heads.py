"""Heads of the checkpoints of a stream, and the head that scores each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from hubmerge.checkpoints import Checkpoint
from hubmerge.checkpoints.planning.task_heads import describe_head, find_head
from hubmerge.checkpoints.weight_names import is_timm
from hubmerge.errors import EvaluationError
from hubmerge.evaluation.own_head import BASE_HEAD, OWN_HEAD_KINDS, HeadFacts, OwnHead
from hubmerge.plan.settings import selection_of
from hubmerge.report.inputs import TaskReport
from hubmerge.stream.open_source import open_for_planning, open_source, resolve_adapter
from hubmerge.stream.stream import Stream
from hubmerge.support.text import listed
from merge_recipes import Task, task_entries


class OwnHeads:
    """The heads that the checkpoints of a stream have and the base model lacks, each found when it is asked for."""

    def __init__(self, stream: Stream, base: Checkpoint | None = None) -> None:
        """Prepare to look for heads.

        Args:
            stream: The stream.
            base: Its base model; by default it is opened from its header.
        """
        self._stream, self._base = stream, base
        self._found: dict[str, OwnHead | None] = {}

    @property
    def base(self) -> Checkpoint:
        """The base model."""
        if self._base is None:
            self._base = open_for_planning(self._stream.base)
        return self._base

    def of_task(self, task: Task, recorded: Sequence[TaskReport] = ()) -> OwnHead | None:
        """Return the head that scores a task, None for the base model's.

        A task of earlier steps keeps its head. Another one has the head that its key `head` names, or else that of the
        entry it belongs to, if this entry has one that fits the kind.

        Args:
            task: The task.
            recorded: Tasks of the steps that are published or on disk.

        Raises:
            EvaluationError: There is no such head, or it belongs to a model for something else.
            CheckpointError: A checkpoint cannot be opened.
            HubError: A file is missing, or may not be read.
        """
        recipe = self._stream.recipe
        known = next((one for one in recorded if one.name == task.name and one.examples is not None), None)
        if known is not None:
            _check_recorded(task, known)
            return None if known.head is None else self._named(task, known.head)
        if task.head is not None and (task.head != BASE_HEAD or BASE_HEAD in self.entries):
            return self._named(task, task.head)
        owner = task_entries(recipe).get(task.name)
        if task.head is not None or task.kind not in OWN_HEAD_KINDS or owner is None or recipe.slices:
            return None
        found = self.of_entry(owner)
        return found if found is not None and self._fits(found, task) else None

    @property
    def entries(self) -> list[str]:
        """Names of the entries."""
        return [entry.name for entry in self._stream.entries]

    def of_entry(self, name: str) -> OwnHead | None:
        """Return the own head of an entry, None if its checkpoint has none."""
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def _named(self, task: Task, name: str) -> OwnHead:
        place, recipe = f"task {task.name}: head: {name}", self._stream.recipe
        if task.kind not in OWN_HEAD_KINDS:
            raise EvaluationError(f"{place}: tasks of the kind {task.kind} have no head", hint="remove the key `head`")
        if recipe.slices:
            raise EvaluationError(
                f"{place}: the recipe stacks layers, and heads of checkpoints are not kept",
                hint="remove the key `head`",
            )
        if name not in self.entries:
            raise EvaluationError(
                f"{place}: the stream has no entry of this name; its entries: {listed(self.entries, 8)}",
                hint=f"set `head` to one of them, or to {BASE_HEAD} for the base model's head",
            )
        found = self.of_entry(name)
        if found is None:
            raise EvaluationError(
                f"{place}: the checkpoint has no head of its own beside the merged model",
                hint=f"remove the key `head`, or write `head: {BASE_HEAD}` to use the base model's head",
            )
        if not self._fits(found, task):
            raise EvaluationError(
                f"{place}: the head belongs to a {found.facts.architecture or 'model of an unknown class'}, "
                f"expected one of a class {OWN_HEAD_KINDS[task.kind]}",
                hint="set `head` to an entry with a head for classes, or change `kind`",
            )
        return found

    def _fits(self, head: OwnHead, task: Task) -> bool:
        return head.facts.fits(task.kind, timm=is_timm(self.base.config))

    def _find(self, name: str) -> OwnHead | None:
        """Find the head of an entry in its checkpoint."""
        if name not in self.entries:
            return None
        source = resolve_adapter(self._stream.source(self.entries.index(name) + 1))
        checkpoint = open_for_planning(source, self.base)
        names = find_head(self.base, checkpoint, selection_of(self._stream.recipe))
        if not names:
            return None

        def read() -> Mapping[str, torch.Tensor]:
            with open_source(source) as opened:
                return {tensor: opened.read(tensor) for tensor in names}

        return OwnHead(HeadFacts.of(name, describe_head(checkpoint, names, self.base.config)), read)


def _check_recorded(task: Task, known: TaskReport) -> None:
    """Refuse another head than that of the steps so far, whose scores could not be compared."""
    wanted = None if task.head == BASE_HEAD else task.head
    if task.head is not None and wanted != known.head:
        before = "the base model's head" if known.head is None else f"the head of {known.head}"
        raise EvaluationError(
            f"task {task.name}: the steps so far were scored with {before}, the recipe asks for {task.head}: the "
            "scores could not be compared",
            hint=f"write `head: {known.head or BASE_HEAD}`, or give the task another name",
        )
