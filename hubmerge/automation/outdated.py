"""Changes on the Hub since a stream was locked: new commits, new entries, deleted and gated repos."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from hubmerge.hub.listing import RepoStatus, find_models, repo_status
from hubmerge.stream.expansion import expand
from hubmerge.stream.new_commits import merged_commits
from hubmerge.stream.pinned import PinnedCommits
from hubmerge.support import memo
from hubmerge.support.names import step_tag
from hubmerge.support.text import short_commit
from merge_recipes import LoadedRecipe, LockedModel, ModelReference, StreamEntry

ChangeKind = Literal["new commit", "new entry", "not merged yet", "deleted", "gated", "disabled"]
NO_EFFECT = "none"
"""Begin of the effect of a change that a run does nothing about."""

KEPT = f"{NO_EFFECT}: the stream keeps its pinned commit"
GetStatus = Callable[[str, str, str | None], RepoStatus]


@dataclass(frozen=True)
class Change:
    """One change on the Hub.

    Attributes:
        change: the kind of change.
        kind: the kind of repo.
        name: name of the stream entry or of the task.
        reference: the reference in the recipe.
        was: the pinned commit, None for a new entry.
        now: the newest commit, None if the repo cannot be read.
        effect: the effect on the next run, in words.
    """

    change: ChangeKind
    kind: Literal["base model", "model", "adapter", "dataset"]
    name: str
    reference: str
    was: str | None
    now: str | None
    effect: str

    def to_dict(self) -> dict[str, Any]:
        """Return the change as plain JSON values."""
        return asdict(self)


class Changes(tuple[Change, ...]):
    """The changes on the Hub; `str()` of them is a table."""

    __slots__ = ()

    @property
    def need_run(self) -> bool:
        """True if the next run merges something or cannot read a source; False if it would leave all as it is."""
        return any(not one.effect.startswith(NO_EFFECT) for one in self)

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
    pinned = PinnedCommits.gather(loaded)
    expansion = expand(loaded.recipe, pinned.models, pinned.merged, find_models, None)
    get_status = functools.cache(repo_status)
    changes = [*_base(loaded, pinned, get_status)]
    changes += _models(loaded, pinned, get_status, expansion.entries)
    changes += _entries(expansion.entries, pinned, get_status, publishes=publish is not None)
    known = {one.reference for one in changes}
    changes += [one for one in _kept(loaded, pinned, get_status) if one.reference not in known]
    return Changes((*changes, *_datasets(loaded, pinned, get_status)))


def call_for_run(loaded: LoadedRecipe, changes: Changes) -> bool:
    """Return True if the next run has something to do, or if this machine reports a change for the first time.

    A change that a run does nothing about, such as a new commit of the base model, is thus reported by exit status 10
    once. What was reported is kept in the user's cache folder.
    """
    publish = loaded.recipe.publish
    key = (publish.repo if publish is not None else str(loaded.path.absolute())).encode()
    reported = [f"{one.change} {one.kind} {one.reference} {one.now}" for one in changes]
    known = memo.get("reported-changes", key, list) or []
    if reported != known:
        memo.put("reported-changes", key, reported)
    return changes.need_run or not set(reported) <= set(known)


def _base(loaded: LoadedRecipe, pinned: PinnedCommits, get_status: GetStatus) -> Iterator[Change]:
    if pinned.locks:
        base = pinned.locks[0].base_model
        if base.reference == loaded.recipe.base_model:
            yield from _changed("base model", base.name, base.reference, [base], get_status, KEPT)


def _models(
    loaded: LoadedRecipe, pinned: PinnedCommits, get_status: GetStatus, entries: Sequence[StreamEntry]
) -> Iterator[Change]:
    """Yield new commits of the locked checkpoints, and those whose repos can no longer be read."""
    models, recipe = pinned.models, loaded.recipe
    listed = {str(entry.model): entry for entry in reversed(entries)}
    for index, model in enumerate(models):
        same = [one for one in models if str(one.reference) == str(model.reference)]
        if same[0] is not model or str(model.reference) not in listed:
            continue
        step = index + 1
        effect = {
            "append": "adds a step at the end",
            "replace": "takes the place of the old commit, in a step at the end",
            "replay": f"replays the stream from {step_tag(step)}",
            "ignore": f"{NO_EFFECT}: the recipe has on_update: ignore",
        }[recipe.on_update]
        if recipe.on_update in {"append", "replace"}:
            live = merged_commits(recipe, entries, models, listed[str(model.reference)])
            if live is None:
                effect = f"{NO_EFFECT}: the recipe revokes the entry"
            elif recipe.on_update == "replace":
                same = live or same
        lost = f"{NO_EFFECT}: already merged" if index < pinned.merged else "the run fails: it cannot read the repo"
        yield from _changed("model", model.name, model.reference, same, get_status, effect, lost)


def _kept(loaded: LoadedRecipe, pinned: PinnedCommits, get_status: GetStatus) -> Iterator[Change]:
    """Yield changes of models whose commits stay: those of the stages, and those that only lend a tokenizer."""
    locks, seen = pinned.locks, set()
    found = [(f"tokenizer of {one.tokenizer.name}", one.tokenizer) for one in locks if one.tokenizer is not None][:1]
    for document in loaded.stages:
        stage = next((one for lock in locks for one in lock.stages if one.name == document.stage), None)
        if stage is not None:
            found += [(f"{model.name} of {stage.name}", model) for model in stage.pinned()]
    for name, model in found:
        if str(model.reference) not in seen:
            seen.add(str(model.reference))
            yield from _changed("model", name, model.reference, [model], get_status, KEPT)


def _changed(
    kind: Literal["base model", "model"],
    name: str,
    reference: ModelReference,
    locked: Sequence[LockedModel],
    get_status: GetStatus,
    effect: str,
    lost: str = f"{NO_EFFECT} until a step is added: a run that reads the repo fails",
) -> Iterator[Change]:
    if reference.is_local:
        return
    parts: list[tuple[Literal["base model", "model", "adapter"], ModelReference, list[str | None]]] = [
        (kind, reference, [model.commit for model in locked])
    ]
    if reference.adapter is not None and not reference.adapter.is_local:
        parts.append(("adapter", reference.adapter, [model.adapter_commit for model in locked]))
    for part, place, known in parts:
        now = get_status("model", place.path, place.revision)
        if now.state != "there":
            yield Change(now.state, part, name, str(place), known[-1], None, lost)
        elif now.commit not in known:
            yield Change("new commit", part, name, str(place), known[-1], now.commit, effect)


def _entries(
    entries: Iterable[StreamEntry], pinned: PinnedCommits, get_status: GetStatus, *, publishes: bool
) -> Iterator[Change]:
    """Yield entries that are not locked, and entries that are locked but not published."""
    known = {str(model.reference): model for model in pinned.models}
    for index, entry in enumerate(entries):
        reference = str(entry.model)
        if reference not in known:
            now = (
                RepoStatus("there")
                if entry.model.is_local
                else get_status("model", entry.model.path, entry.model.revision)
            )
            effect = "adds a step" if now.state == "there" else f"the run fails: the repo is {now.state}"
            yield Change("new entry", "model", entry.name, reference, None, now.commit, effect)
        elif publishes and index >= pinned.merged:
            commit = known[reference].commit
            yield Change("not merged yet", "model", entry.name, reference, None, commit, "adds the missing step")


def _datasets(loaded: LoadedRecipe, pinned: PinnedCommits, get_status: GetStatus) -> Iterator[Change]:
    locked = {(data.path, data.revision): data.commit for lock in reversed(pinned.locks) for data in lock.datasets}
    seen = set()
    tasks = loaded.recipe.evaluate.tasks if loaded.recipe.evaluate is not None else ()
    for task, source in ((one, source) for one in tasks for source in one.dataset.sources):
        key = (source.written_path, source.revision)
        if source.is_local or key not in locked or key in seen:
            continue
        seen.add(key)
        now = get_status("dataset", *key)
        if now.state != "there":
            lost = f"{NO_EFFECT} until a step is added: a run that scores the task fails"
            yield Change(now.state, "dataset", task.name, key[0], locked[key], None, lost)
        elif now.commit != locked[key]:
            yield Change("new commit", "dataset", task.name, key[0], locked[key], now.commit, KEPT)


def _short(commit: str | None) -> str:
    return "-" if commit is None else short_commit(commit)
