"""What moved on the Hub since a stream was locked: new commits, new entries, repos that are gone or gated now."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from hubmerge.hub.listing import RepoStatus, find_models, repo_status
from hubmerge.stream.expansion import expand
from hubmerge.stream.pinned import PinnedCommits
from hubmerge.support.names import step_tag
from hubmerge.support.text import short_commit
from merge_recipes import LoadedRecipe, LockedModel, ModelReference, StreamEntry

ChangeKind = Literal["new commit", "new entry", "not merged yet", "deleted", "gated", "disabled"]
Ask = Callable[[str, str, str | None], RepoStatus]


@dataclass(frozen=True)
class Change:
    """One thing that moved. `was` and `now` are commits; `effect` says what the next run makes of it."""

    change: ChangeKind
    kind: Literal["base model", "model", "adapter", "dataset"]
    name: str
    reference: str
    was: str | None
    now: str | None
    effect: str

    def to_dict(self) -> dict[str, Any]:
        """The news as plain JSON values."""
        return asdict(self)


class Changes(tuple[Change, ...]):
    """The changes on the Hub; `str()` of them is a table."""

    __slots__ = ()

    def __str__(self) -> str:
        if not self:
            return "nothing changed"
        rows = [("change", "repo", "reference", "was", "now", "effect on the next run")]
        rows += [
            (one.change, f"{one.kind} {one.name}", one.reference, _short(one.was), _short(one.now), one.effect)
            for one in self
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def find_changes(loaded: LoadedRecipe) -> Changes:
    """Compare the published commits, or those in the lock beside the recipe, with the newest ones on the Hub.

    Raises:
        HubError: the Hub does not answer, or the target repo holds another stream.
    """
    publish = loaded.recipe.publish
    held = PinnedCommits.gather(loaded)
    growth = expand(loaded.recipe, held.models, held.merged, find_models, None)
    ask = functools.cache(repo_status)
    changes = [*_base(loaded, held, ask)]
    changes += _models(loaded, held, ask, {str(entry.model) for entry in growth.entries})
    changes += _entries(growth.entries, held, ask, publishes=publish is not None)
    return Changes((*changes, *_datasets(loaded, held, ask)))


def _base(loaded: LoadedRecipe, held: PinnedCommits, ask: Ask) -> Iterator[Change]:
    if held.locks:
        base = held.locks[0].base_model
        if base.reference == loaded.recipe.base_model:
            yield from _moved("base model", base.name, base.reference, [base], ask, "none: the stream keeps its commit")


def _models(loaded: LoadedRecipe, held: PinnedCommits, ask: Ask, wanted: set[str]) -> Iterator[Change]:
    """New commits, and repos that cannot be read any more, of the checkpoints that a lock names."""
    models = held.models
    for index, model in enumerate(models):
        same = [one for one in models if str(one.reference) == str(model.reference)]
        if same[0] is not model or str(model.reference) not in wanted:
            continue
        step = index + 1
        effect = {
            "append": "a new step at the end",
            "replay": f"the stream is replayed from {step_tag(step)} on",
            "ignore": "none: the recipe says on_update: ignore",
        }[loaded.recipe.on_update]
        lost = "none: it is merged" if index < held.merged else "the run cannot read it"
        yield from _moved("model", model.name, model.reference, same, ask, effect, lost)


def _moved(
    kind: Literal["base model", "model"],
    name: str,
    reference: ModelReference,
    locked: Sequence[LockedModel],
    ask: Ask,
    effect: str,
    lost: str = "a run that reads it will fail",
) -> Iterator[Change]:
    if reference.is_local:
        return
    parts: list[tuple[Literal["base model", "model", "adapter"], ModelReference, list[str | None]]] = [
        (kind, reference, [model.commit for model in locked])
    ]
    if reference.adapter is not None and not reference.adapter.is_local:
        parts.append(("adapter", reference.adapter, [model.adapter_commit for model in locked]))
    for part, place, known in parts:
        now = ask("model", place.path, place.revision)
        if now.state != "there":
            yield Change(now.state, part, name, str(place), known[-1], None, lost)
        elif now.commit not in known:
            yield Change("new commit", part, name, str(place), known[-1], now.commit, effect)


def _entries(entries: Iterable[StreamEntry], held: PinnedCommits, ask: Ask, *, publishes: bool) -> Iterator[Change]:
    """Entries that no lock names, and those that are locked but not yet published."""
    known = {str(model.reference): model for model in held.models}
    for index, entry in enumerate(entries):
        reference = str(entry.model)
        if reference not in known:
            now = RepoStatus("there") if entry.model.is_local else ask("model", entry.model.path, entry.model.revision)
            effect = "a new step" if now.state == "there" else f"the run cannot read it: {now.state}"
            yield Change("new entry", "model", entry.name, reference, None, now.commit, effect)
        elif publishes and index >= held.merged:
            commit = known[reference].commit
            yield Change("not merged yet", "model", entry.name, reference, None, commit, "a step that is still missing")


def _datasets(loaded: LoadedRecipe, held: PinnedCommits, ask: Ask) -> Iterator[Change]:
    locked = {(data.path, data.revision): data.commit for lock in reversed(held.locks) for data in lock.datasets}
    told = set()
    for task in loaded.recipe.evaluate.tasks if loaded.recipe.evaluate is not None else ():
        key = (task.dataset.written_path, task.dataset.revision)
        if task.dataset.is_local or key not in locked or key in told:
            continue
        told.add(key)
        now = ask("dataset", *key)
        if now.state != "there":
            lost = "a run that scores the task will fail"
            yield Change(now.state, "dataset", task.name, key[0], locked[key], None, lost)
        elif now.commit != locked[key]:
            effect = "none: the stream keeps its commit"
            yield Change("new commit", "dataset", task.name, key[0], locked[key], now.commit, effect)


def _short(commit: str | None) -> str:
    return "-" if commit is None else short_commit(commit)
