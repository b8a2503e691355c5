"""Stages of a stream: other documents of the recipe's file, whose merged models it uses.

A stage is locked like a recipe. The commit of its merged model is the digest of everything that the model depends on,
so that a stream can be locked and planned before its stages are merged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubmerge.methods import is_joint
from hubmerge.report.stages import StageReport
from merge_recipes import LoadedRecipe, Lock, LockedStage, chain_digests, joint_digest, recipe_digest

if TYPE_CHECKING:
    from hubmerge.stream.sources import SourceResolver

LockStage = Callable[[LoadedRecipe], Lock]
"""Function that finds the commits of a stage."""


@dataclass(frozen=True)
class LockedRecipe:
    """A stage and its lock.

    Attributes:
        loaded: The stage, with all its models.
        lock: Its commits.
        chain: Digests of what its steps depend on.
        inputs: If it merges all models at once, the numbers of the entries of its only step; else empty.
    """

    loaded: LoadedRecipe
    lock: Lock
    chain: tuple[str, ...]
    inputs: tuple[tuple[int, ...], ...]

    @property
    def name(self) -> str:
        """Name of the stage."""
        return str(self.loaded.stage)

    @property
    def digest(self) -> str:
        """Digest of everything that the merged model depends on."""
        return self.chain[-1]

    @property
    def locked(self) -> LockedStage:
        """The stage as a lock has it."""
        lock = self.lock
        return LockedStage(
            name=self.name,
            digest=self.digest,
            base_model=lock.base_model,
            tokenizer=lock.tokenizer,
            models=lock.models,
        )

    @classmethod
    def of(cls, loaded: LoadedRecipe, lock: Lock) -> LockedRecipe:
        """Return a stage with the digests that follow from its lock."""
        recipe = loaded.recipe.with_stream(loaded.recipe.stream())
        loaded = replace(loaded, recipe=recipe)
        if is_joint(recipe):
            whole = tuple(range(1, len(lock.models) + 1))
            return cls(loaded, lock, (lock.recipe, joint_digest(recipe, lock)), (whole,))
        return cls(loaded, lock, chain_digests(recipe, lock), ())


@dataclass(frozen=True)
class StageModel:
    """Merged model of a stage.

    Attributes:
        folder: Its folder; for a plan, one with headers alone.
        commit: Digest of the folder, as for a local model.
        report: Report of the stage, None for a plan.
    """

    folder: Path
    commit: str
    report: StageReport | None = None


def lock_stages(loaded: LoadedRecipe, resolver: SourceResolver, lock_stage: LockStage) -> tuple[LockedRecipe, ...]:
    """Return the stages of a recipe with their commits, and let the resolver know the digest of each.

    Args:
        loaded: The recipe.
        resolver: The resolver of commits.
        lock_stage: Function that finds the commits of a stage.
    """
    found = []
    for stage in loaded.stages:
        one = LockedRecipe.of(stage, lock_stage(stage))
        resolver.pin_stage(one.name, one.digest)
        found.append(one)
    return tuple(found)


def read_locked_stages(loaded: LoadedRecipe, lock: Lock) -> tuple[LockedRecipe, ...]:
    """Return the stages of a recipe with the commits of a lock.

    Raises:
        LockError: The lock does not have a stage.
    """
    locks = [(stage, lock.of_stage(str(stage.stage), recipe_digest(stage.recipe))) for stage in loaded.stages]
    return tuple(LockedRecipe.of(stage, one) for stage, one in locks)


def with_stages(lock: Lock, stages: tuple[LockedRecipe, ...]) -> Lock:
    """Return a lock with the commits of the stages."""
    if not stages:
        return lock
    return lock.model_copy(update={"version": 2, "stages": tuple(stage.locked for stage in stages)})
