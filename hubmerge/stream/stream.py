"""Streams: recipes whose references are resolved to commits, with the digests that each step depends on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from hubmerge.errors import ErrorCollector, HubError, HubmergeError, TargetError
from hubmerge.hub.failures import is_outage
from hubmerge.hub.listing import find_models, newest_commits
from hubmerge.hub.publish import RESTORE_REPORT, Target
from hubmerge.methods import is_joint
from hubmerge.report.history import report_until
from hubmerge.report.report import RunReport, StepReport
from hubmerge.stream.expansion import Expansion, expand
from hubmerge.stream.joint_steps import joint_steps, missing_inputs
from hubmerge.stream.lockfile import lock_path
from hubmerge.stream.pinned import PinnedCommits, check_same
from hubmerge.stream.replacements import is_half
from hubmerge.stream.sealed_report import sealed_report
from hubmerge.stream.sources import Source, SourceResolver
from hubmerge.stream.step_history import history_reader
from hubmerge.stream.task_datasets import Commits, resolve_datasets
from hubmerge.support.names import step_tag
from hubmerge.support.text import counted, short_commit
from merge_recipes import (
    LoadedRecipe,
    Lock,
    Recipe,
    StreamEntry,
    chain_digests,
    lock_recipe,
)

TaskCheck = Callable[[LoadedRecipe, Commits, ErrorCollector], None]
"""Function that collects the mistakes of the tasks whose datasets have commits."""

NAMES_SHOWN = 3
"""Number of names in the name of a joint step."""

STEPS_AT_ONCE = 16
"""Number of steps that are merged together at most. A state is saved after them even if no step needs it, which bounds
the work lost to an interruption and the number of open files."""


@dataclass(frozen=True)
class Stream:
    """A recipe resolved to commits.

    Attributes:
        loaded: The recipe, with the expanded stream as its models.
        lock: The commits.
        chain: Digests of everything that the steps depend on; `chain[t]` belongs to step t, `chain[0]` to the start.
        target: Content of the target repo, None if the recipe publishes nothing.
        replay: True if published steps that no longer match the recipe are merged again; they are an error otherwise.
        every_model: True if the merged model of every step is needed, whatever the recipe says.
        inputs: If the recipe merges all models at once, the numbers of the entries of each step, from 1; else empty.
    """

    loaded: LoadedRecipe
    lock: Lock
    chain: tuple[str, ...]
    target: Target | None
    replay: bool = False
    every_model: bool = False
    inputs: tuple[tuple[int, ...], ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.loaded.recipe

    @property
    def base(self) -> Source:
        """The base model."""
        return Source.of(self.lock.base_model)

    @cached_property
    def entries(self) -> tuple[StreamEntry, ...]:
        """The entries in merge order; step t merges `entries[t - 1]`, or those of `entries_of(t)`."""
        return self.recipe.stream()

    def source(self, entry: int) -> Source:
        """Return the checkpoint of an entry, by its number from 1, which is that of its step in a stream of folds."""
        return Source.of(self.lock.models[entry - 1], self.base)

    @property
    def is_joint(self) -> bool:
        """True if each step merges all its models at once, without the step before it."""
        return bool(self.inputs)

    def entries_of(self, step: int) -> tuple[int, ...]:
        """Return the numbers of the entries that a step merges, from 1."""
        return self.inputs[step - 1] if self.inputs else (step,)

    def planned_entries(self, steps: range) -> tuple[int, ...]:
        """Return the numbers of the entries of these steps, from 1; of joint steps the last's, without the base."""
        if not self.inputs:
            return tuple(steps)
        entries = self.entries_of(steps[-1])
        others = tuple(entry for entry in entries if not self.is_base(entry))
        return others or entries

    def is_base(self, entry: int) -> bool:
        """Return True if an entry of a joint merge is the base model, which the recipe lists."""
        return self.is_joint and self.recipe.names_base and self.recipe.is_base(self.entries[entry - 1])

    def step_name(self, step: int) -> str:
        """Return the name of a step: that of its entry, or the names of the entries that a joint step adds."""
        before = self.entries_of(step - 1) if self.inputs and step > 1 else ()
        names = [self.lock.models[entry - 1].name for entry in self.entries_of(step) if entry not in before]
        return ", ".join(names) if len(names) <= NAMES_SHOWN else f"{names[0]} and {len(names) - 1} more"

    @property
    def length(self) -> int:
        """Number of steps."""
        return len(self.inputs or self.lock.models)

    def publishes(self, step: int) -> bool:
        """Return True if a step is published; one that takes out an older commit is published with the newer one."""
        publish = self.recipe.publish
        every = publish is not None and publish.steps == "every" and not is_half(self.entries, step)
        return publish is not None and (every or step == self.length)

    def needs_model(self, step: int) -> bool:
        """Return True if the merged model of a step is written: to publish or score it, or because it is the last."""
        scored = self.recipe.evaluate is not None and not is_half(self.entries, step)
        return self.every_model or scored or self.publishes(step) or step == self.length

    def needs_state(self, step: int) -> bool:
        """Return True if the state after a step is kept: to write its model, or to verify the next step."""
        if self.is_joint:
            return False
        publish = self.recipe.publish
        verifies_next = (
            publish is not None and publish.state != "none" and step < self.length and self.publishes(step + 1)
        )
        return self.needs_model(step) or verifies_next

    def published_report(self) -> RunReport | None:
        """Return the report at the head of the target repo after checking that it belongs to this stream.

        Raises:
            TargetError: The repo holds another stream, more steps than this one has, or a report that was changed.
        """
        if self.target is None or self.target.report is None:
            return None
        report = sealed_report(self.target, self.target.report)
        same = self.common_steps(report)
        if same == len(report.steps):
            return report
        if self.replay:
            return self._until(report, same) if same else None
        other = report.steps[same]
        repo, tag = self.target.repo, step_tag(other.step)
        if other.step > self.length:
            raise TargetError(
                f"target repo {repo} is at {tag} ({other.name}), but the recipe has only "
                f"{counted(len(self.entries), 'entry', 'entries')}: an entry was removed from the recipe",
                hint="put the entry back, or add --replay to re-merge from the first step that no longer matches",
                repo=repo,
            )
        raise TargetError(
            f"target repo {repo} was published from another recipe: {self._difference(report, other)}",
            hint="restore the published recipe (hubmerge.yaml in that repo), publish to another repo, or add "
            "--replay to re-merge from the first step that no longer matches",
            repo=repo,
        )

    def _until(self, report: RunReport, step: int) -> RunReport:
        """Return the published report as it was after a step."""
        try:
            return report_until(report, step, history_reader(report, None, self.target))
        except HubmergeError as error:
            repo = self.target.repo if self.target is not None else None
            raise TargetError(f"target repo {repo}: {error.message}", hint=RESTORE_REPORT, repo=repo) from error

    def _difference(self, report: RunReport, other: StepReport) -> str:
        """Describe the difference between a published step and the step of that number in the recipe."""
        tag, ours, base = step_tag(other.step), self.lock.models[other.step - 1], self.lock.base_model
        if bool(other.inputs) != self.is_joint:
            return f"{tag} merged {'all models at once' if other.inputs else 'one checkpoint after another'}"
        if self.is_joint and (missing := missing_inputs(other, self.lock)):
            return f"{tag} merged {missing[0]}, which is not in the recipe"
        if not self.is_joint and (other.reference, other.commit) != (str(ours.reference), ours.commit):
            return (
                f"{tag} merged {other.reference} at {short_commit(other.commit)}; step {other.step} of the recipe is "
                f"{ours.reference} at {short_commit(ours.commit)}"
            )
        if report.base_model.commit != base.commit:
            published = report.base_model
            return (
                f"its base model is {published.reference} at {short_commit(published.commit)}; the recipe has "
                f"{base.reference} at {short_commit(base.commit)}"
            )
        if report.merge_method != self.recipe.merge_method:
            return f"its merge method is {report.merge_method}; the recipe has {self.recipe.merge_method}"
        pairs = (json.dumps(dict(values), sort_keys=True) for values in (report.parameters, self.recipe.parameters))
        theirs, ours_parameters = map(json.loads, pairs)
        differing = sorted(key for key in {*theirs, *ours_parameters} if theirs.get(key) != ours_parameters.get(key))
        if differing:
            return f"its parameters differ from the recipe: {', '.join(differing)}"
        where = "all steps" if other.step == 1 else f"the steps from {tag} on"
        return (
            f"the models match, but {where} depend on another setting: a parameter of an entry, an adapter, dtype, "
            "out_dtype, slices, tensors or the tokenizer"
        )

    def common_steps(self, report: RunReport) -> int:
        """Return the number of leading steps of a report that match this stream."""
        same = 0
        for step in report.steps[: self.length]:
            if step.chain_digest != self.chain[step.step]:
                break
            same = step.step
        return same


def resolve_stream(
    loaded: LoadedRecipe,
    pinned: PinnedCommits,
    *,
    replay: bool = False,
    hash_folders: bool = False,
    check_tasks: TaskCheck | None = None,
) -> Stream:
    """Resolve every reference of a recipe to a commit.

    References with a pinned commit keep it: new commits in a source repo do not change a stream. With
    `on_update: append`, a new commit of a merged checkpoint becomes an entry of its own at the end; with
    `on_update: replace`, an entry before it takes the older commit out; with `on_update: replay`, every checkpoint is
    resolved to its newest commit.

    Args:
        loaded: The recipe.
        pinned: Commits pinned by earlier locks.
        replay: Follow the order of the recipe, even where it differs from what is merged.
        hash_folders: Hash local folders on all CPUs and import model classes meanwhile, for a run that needs both.
        check_tasks: Function that collects other mistakes of the tasks if something cannot be resolved.

    Raises:
        HubError: A repo or revision is missing, private or gated, or the queries find nothing.
        CombinedError: Several datasets cannot be resolved, or tasks have mistakes too.
        RecipeError: A lock does not match the recipe.
    """
    replay = replay or (loaded.recipe.on_update == "replay" and not pinned.exact)
    collector = ErrorCollector(is_outage)
    resolver = SourceResolver(pinned.locks, models=loaded.recipe.on_update != "replay" or pinned.exact)
    commits = resolve_datasets(loaded, resolver.resolve, collector)
    if not collector.errors:
        with collector.collect():
            if pinned.exact:
                expansion, lock = _resolve_exactly(loaded, pinned, resolver)
            else:
                expansion, lock = _resolve(loaded, pinned, resolver, replay=replay, hash_folders=hash_folders)
    if collector.errors and check_tasks is not None:
        check_tasks(loaded, commits, collector)
    collector.check()
    return _stream(loaded, expansion, lock, pinned, replay=replay)


def _stream(loaded: LoadedRecipe, expansion: Expansion, lock: Lock, pinned: PinnedCommits, *, replay: bool) -> Stream:
    resolved = replace(loaded, recipe=loaded.recipe.with_stream(expansion.entries))
    if is_joint(resolved.recipe):
        chain, inputs = joint_steps(resolved.recipe, lock, pinned.recorded)
        return Stream(resolved, lock, chain, pinned.target, replay, inputs=inputs)
    return Stream(resolved, lock, chain_digests(resolved.recipe, lock), pinned.target, replay)


def _resolve(
    loaded: LoadedRecipe, pinned: PinnedCommits, resolver: SourceResolver, *, replay: bool, hash_folders: bool
) -> tuple[Expansion, Lock]:
    recipe = loaded.recipe
    known, merged = ((), 0) if replay else (pinned.models, pinned.merged)
    expansion = expand(recipe, known, merged, find_models, newest_commits)
    if not expansion.entries:
        raise HubError(
            f"{loaded.path}: the queries find no model on the Hub",
            hint="check author, name and tags of the queries",
            file=str(loaded.path),
        )
    if hash_folders:
        new = [entry.model for entry in expansion.entries if entry.name not in expansion.pinned]
        resolver.hash_folders(recipe.base_model, new, classes=recipe.evaluate is not None)
    return expansion, lock_recipe(loaded, resolver, entries=expansion.entries, pinned=expansion.pinned)


def _resolve_exactly(loaded: LoadedRecipe, pinned: PinnedCommits, resolver: SourceResolver) -> tuple[Expansion, Lock]:
    """Resolve a recipe from the lock beside it alone, without queries."""
    (lock,) = pinned.locks
    expansion = expand(loaded.recipe, lock.models, len(lock.models), lambda _: (), None)
    resolved = lock_recipe(loaded, resolver, entries=expansion.entries, pinned=expansion.pinned)
    check_same(resolved, lock, str(lock_path(loaded.path)))
    return expansion, resolved
