"""Commits pinned by earlier locks of a stream: published, in the work folder, beside the recipe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hubmerge.errors import HubError, HubmergeError, TargetError
from hubmerge.hub.offline import is_offline
from hubmerge.hub.publish import Target, read_target
from hubmerge.report.report import RunReport
from hubmerge.stream.lockfile import lock_path, read_lock, require_lock
from hubmerge.stream.work_files import read_work_lock, read_work_report
from hubmerge.support.names import LOCK_FILE
from hubmerge.support.text import counted, short_commit
from hubmerge.support.workspace import Workspace
from merge_recipes import LoadedRecipe, Lock, LockedModel, LockError, Problem


@dataclass(frozen=True)
class PinnedCommits:
    """Earlier locks of a stream, and the target repo they were read from.

    Attributes:
        locks: Earlier locks. The first lock that names a reference pins its commit.
        merged: Number of models that are merged already.
        target: Content of the target repo, None if the recipe publishes nothing.
        exact: True if every commit must come from the lock beside the recipe, the only one in `locks`.
        recorded: Report of the finished steps, None if there are none. Damage in it is found later.
    """

    locks: tuple[Lock, ...]
    merged: int
    target: Target | None = None
    exact: bool = False
    recorded: RunReport | None = None

    @classmethod
    def gather(cls, loaded: LoadedRecipe, workspace: Workspace | None = None, *, update: bool = False) -> PinnedCommits:
        """Read the locks of the target repo, of the work folder and beside the recipe.

        Args:
            loaded: The recipe.
            workspace: Work folder of the run, None if there is none.
            update: Read the published lock only, and only the models that are merged.

        Raises:
            HubError: The target repo cannot be read, or was not published by hubmerge.
            LockError: A lock cannot be read.
        """
        if is_offline() and not loaded.part and read_lock(loaded) is not None:
            return cls.from_lock(loaded, workspace, writes=workspace is not None)
        target = read_recipe_target(loaded, writes=workspace is not None)
        merged = published_steps(target)
        locks = []
        published = published_lock(target)
        if published is not None:
            locks.append(_first_models(published, merged) if update else published)
        kept = read_work_lock(workspace) if workspace is not None else None
        if workspace is not None and kept is not None:
            locks.append(kept)
            report = read_work_report(workspace)
            merged = merged if report is None else max(merged, len(report.models))
        beside = None if update else read_lock(loaded)
        if beside is not None:
            locks.append(beside)
        return cls(tuple(locks), merged, target, recorded=_recorded(loaded, target, workspace))

    @classmethod
    def from_lock(
        cls, loaded: LoadedRecipe, workspace: Workspace | None = None, *, writes: bool = True
    ) -> PinnedCommits:
        """Read the lock beside the recipe, from which every commit must then come.

        Args:
            loaded: The recipe.
            workspace: Work folder of the run, None if there is none.
            writes: True for a run, which publishes to the target repo.

        Raises:
            HubError: The target repo cannot be read, or it was published with other commits.
            RecipeError: The lock is missing, is not a lock, or was made from another recipe.
        """
        target = read_recipe_target(loaded, writes=writes)
        lock = require_lock(loaded)
        check_published(lock, target, str(lock_path(loaded.path)))
        recorded = _recorded(loaded, target, workspace)
        return cls((lock,), len(lock.models), target, exact=True, recorded=recorded)

    @property
    def models(self) -> tuple[LockedModel, ...]:
        """Every model once, by name, in the order of the first lock that names it."""
        found: dict[str, LockedModel] = {}
        for lock in self.locks:
            for model in lock.models:
                found.setdefault(model.name, model)
        return tuple(found.values())


def _recorded(loaded: LoadedRecipe, target: Target | None, workspace: Workspace | None) -> RunReport | None:
    """Return the published report, or for a recipe that publishes nothing that of the work folder."""
    if loaded.recipe.publish is None:
        return None if workspace is None else read_work_report(workspace)
    if target is None or target.report is None:
        return None
    try:
        return RunReport.from_dict(target.report)
    except HubmergeError:
        return None


def read_recipe_target(loaded: LoadedRecipe, *, writes: bool) -> Target | None:
    """Return the target repo; offline, None for a plan, which then has all steps."""
    publish = loaded.recipe.publish
    if publish is None or (is_offline() and not writes):
        return None
    if is_offline():
        raise HubError(
            f"publishing to {publish.repo} needs the Hub, and HF_HUB_OFFLINE is set",
            hint="set HF_HUB_OFFLINE=0, or remove `publish` from a copy of the recipe and run it with --out DIR",
            repo=publish.repo,
        )
    return read_target(publish.repo)


def published_lock(target: Target | None) -> Lock | None:
    """Return the lock at the head of the target repo."""
    if target is None or target.lock is None:
        return None
    return Lock.from_yaml(target.lock, file=f"{target.repo}/{LOCK_FILE}")


def published_steps(target: Target | None) -> int:
    """Return the number of models that the steps in the target repo merged."""
    steps = target.report.get("steps", ()) if target is not None and target.report is not None else ()
    joint = steps[-1].get("inputs", ()) if steps else ()
    return len(joint or steps)


def check_published(lock: Lock, target: Target | None, file: str) -> None:
    """Check that a lock has the commits that the published steps were merged from.

    Args:
        lock: The lock beside the recipe.
        target: Content of the target repo, None if the recipe publishes nothing.
        file: Path of the lock, for messages.

    Raises:
        TargetError: A published step was merged from another commit.
    """
    published = published_lock(target)
    if target is None or published is None:
        return
    merged = published_steps(target)
    change = difference(_first_models(published, merged), _first_models(lock, merged))
    if change is not None:
        raise TargetError(
            f"target repo {target.repo} does not match the lock {file}: published {change}",
            hint="take over the published commits with `hubmerge lock`, or publish to another repo",
            repo=target.repo,
            file=file,
        )


def _first_models(lock: Lock, count: int) -> Lock:
    return lock.model_copy(update={"models": lock.models[:count]})


def check_same(resolved: Lock, lock: Lock, file: str) -> None:
    """Check that resolving the recipe gives the commits of a lock.

    Raises:
        LockError: The first difference.
    """
    change = difference(lock, resolved)
    if change is not None:
        raise LockError(Problem(f"the lock does not match the recipe: locked {change}", "run `hubmerge lock`", file))


def difference(first: Lock, second: Lock) -> str | None:
    """Return the first difference between two locks as "FIRST, expected SECOND", None if their commits are equal."""
    pairs = list(zip((first.base_model, *first.models), (second.base_model, *second.models), strict=False))
    for one, other in pairs:
        if _identity(one) != _identity(other):
            return f"{one.name}: {_described(one)}; expected {other.name}: {_described(other)}"
    if len(first.models) != len(second.models):
        return f"{counted(len(first.models), 'model')}; expected {counted(len(second.models), 'model')}"
    if first.tokenizer is not None and second.tokenizer is not None:
        one, other = first.tokenizer, second.tokenizer
        if _identity(one) != _identity(other):
            return f"the tokenizer of {one.name}: {_described(one)}; expected {_described(other)}"
    expected = {(data.path, data.name, data.revision): data.commit for data in second.datasets}
    for data in first.datasets:
        commit = expected.get((data.path, data.name, data.revision), data.commit)
        if commit != data.commit:
            return f"dataset {data.path} at {short_commit(data.commit)}; expected {short_commit(commit)}"
    return None


def _identity(model: LockedModel) -> Iterable[str | None]:
    return (model.name, str(model.reference), model.commit, model.adapter_commit)


def _described(model: LockedModel) -> str:
    adapter = "" if model.adapter_commit is None else f", adapter at {short_commit(model.adapter_commit)}"
    return f"{model.reference} at {short_commit(model.commit)}{adapter}"
