"""What earlier locks of a stream hold: the published one, that of the work folder, that beside the recipe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hubmerge.errors import TargetError
from hubmerge.hub.publish import Target
from hubmerge.report.report import RunReport
from hubmerge.stream.lockfile import read_lock
from hubmerge.support.names import LOCK_FILE
from hubmerge.support.text import short_commit
from hubmerge.support.workspace import Workspace
from merge_recipes import LoadedRecipe, Lock, LockedModel, LockError, Problem


@dataclass(frozen=True)
class PinnedCommits:
    """Earlier locks, the most binding one first, and how many of the models they name are merged."""

    locks: tuple[Lock, ...]
    merged: int

    @classmethod
    def gather(
        cls, loaded: LoadedRecipe, target: Target | None, workspace: Workspace | None, *, update: bool = False
    ) -> PinnedCommits:
        """Read the locks there are. With `update`, only of what is published.

        Raises:
            LockError: one of them cannot be read.
        """
        merged = published_steps(target)
        locks = []
        published = published_lock(target)
        if published is not None:
            locks.append(published.model_copy(update={"models": published.models[:merged]}) if update else published)
        if workspace is not None and workspace.lock_file.is_file():
            text = workspace.lock_file.read_text(encoding="utf-8")
            locks.append(Lock.from_yaml(text, file=str(workspace.lock_file)))
            if workspace.report_file.is_file():
                report = RunReport.from_json(workspace.report_file.read_text(encoding="utf-8"))
                merged = max(merged, len(report.steps))
        beside = None if update else read_lock(loaded)
        return cls((*locks, beside) if beside is not None else tuple(locks), merged)

    @property
    def models(self) -> tuple[LockedModel, ...]:
        """Every model once, by name, in the order of the most binding lock that names it."""
        found: dict[str, LockedModel] = {}
        for lock in self.locks:
            for model in lock.models:
                found.setdefault(model.name, model)
        return tuple(found.values())


def published_lock(target: Target | None) -> Lock | None:
    """Return the lock at the head of the target repo."""
    if target is None or target.lock is None:
        return None
    return Lock.from_yaml(target.lock, file=f"{target.repo}/{LOCK_FILE}")


def published_steps(target: Target | None) -> int:
    """Return how many steps the target repo holds."""
    return len(target.report.get("steps", ())) if target is not None and target.report is not None else 0


def check_published(lock: Lock, target: Target | None) -> None:
    """Check that a lock goes on from what the target repo holds.

    Raises:
        TargetError: what is published was merged from other commits than the lock has.
    """
    published = published_lock(target)
    if target is None or published is None:
        return
    merged = published_steps(target)
    held = published.model_copy(update={"models": published.models[:merged]})
    change = difference(held, lock.model_copy(update={"models": lock.models[:merged]}))
    if change is not None:
        raise TargetError(
            f"target repo {target.repo} was published from another lock than the one beside the recipe: {change}",
            hint="run `hubmerge lock` to take over what is published, or publish to another repo",
        )


def check_same(drawn: Lock, lock: Lock, file: str) -> None:
    """Check that a lock is what the recipe gives.

    Raises:
        LockError: naming the first difference.
    """
    change = difference(lock, drawn)
    if change is not None:
        raise LockError(Problem(f"the lock is not what would be used: {change}", "lock the recipe again", file))


def difference(first: Lock, second: Lock) -> str | None:
    """Return the first difference between two locks in a sentence, None if they hold the same commits."""
    pairs = list(zip((first.base_model, *first.models), (second.base_model, *second.models), strict=False))
    for one, other in pairs:
        if _identity(one) != _identity(other):
            return f"{one.name} is {_told(one)} there, here {other.name} is {_told(other)}"
    if len(first.models) != len(second.models):
        return f"it has {len(first.models)} models there, {len(second.models)} here"
    here = {(data.path, data.name, data.revision): data.commit for data in second.datasets}
    for data in first.datasets:
        commit = here.get((data.path, data.name, data.revision), data.commit)
        if commit != data.commit:
            return f"dataset {data.path} is at {short_commit(data.commit)} there, here at {short_commit(commit)}"
    return None


def _identity(model: LockedModel) -> Iterable[str | None]:
    return (model.name, str(model.reference), model.commit, model.adapter_commit)


def _told(model: LockedModel) -> str:
    adapter = "" if model.adapter_commit is None else f", adapter at {short_commit(model.adapter_commit)}"
    return f"{model.reference} at {short_commit(model.commit)}{adapter}"
