"""A recipe with every reference settled: which commits are merged in which order, and what each step rests on."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from hubmerge.errors import HubError, TargetError
from hubmerge.hub.listing import find_models, newest_commits
from hubmerge.hub.publish import Target, read_target
from hubmerge.report.report import RunReport, StepReport
from hubmerge.stream.growth import Expansion, expand
from hubmerge.stream.lockfile import lock_path, require_lock
from hubmerge.stream.pinned import PinnedCommits, check_published, check_same
from hubmerge.stream.sources import Source, SourceResolver
from hubmerge.support.files import write_text_atomic
from hubmerge.support.names import step_tag
from hubmerge.support.text import short_commit
from hubmerge.support.workspace import Workspace
from merge_recipes import (
    LoadedRecipe,
    Lock,
    Recipe,
    StreamEntry,
    chain_digests,
    lock_recipe,
)


@dataclass(frozen=True)
class Stream:
    """What a run merges. `chain[t]` identifies everything that step t rests on; `chain[0]` is the start.

    `target` is what the repo to publish to holds, None where the recipe publishes nothing. With `replay`, published
    steps that rest on something else than the recipe now says are made anew; without, they are refused. With
    `every_model` the merged model of every step is wanted, whatever the recipe does with it.
    """

    loaded: LoadedRecipe
    lock: Lock
    chain: tuple[str, ...]
    target: Target | None
    replay: bool = False
    every_model: bool = False

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.loaded.recipe

    @property
    def base(self) -> Source:
        """The base model."""
        return Source.of(self.lock.base_model)

    @property
    def entries(self) -> tuple[StreamEntry, ...]:
        """The entries in merge order; step t merges `entries[t - 1]`."""
        return self.recipe.stream()

    def source(self, step: int) -> Source:
        """Return the checkpoint that a step merges."""
        return Source.of(self.lock.models[step - 1], self.base)

    @property
    def length(self) -> int:
        """How many steps the stream has."""
        return len(self.lock.models)

    def publishes(self, step: int) -> bool:
        """Whether a step is to come to the target repo."""
        wanted = self.recipe.publish
        return wanted is not None and (wanted.steps == "every" or step == self.length)

    def wants_model(self, step: int) -> bool:
        """Whether the merged model of a step is wanted: to be published, to be scored, or as the last one."""
        return self.every_model or self.recipe.evaluate is not None or self.publishes(step) or step == self.length

    def keeps_state(self, step: int) -> bool:
        """Whether the state after a step is to be kept: its model is made of it, or the next step verified from it."""
        wanted = self.recipe.publish
        rests_on = wanted is not None and wanted.state != "none" and step < self.length and self.publishes(step + 1)
        return self.wants_model(step) or rests_on

    def published_report(self) -> RunReport | None:
        """Return the report at the head of the target repo, checked to be of this very stream.

        Raises:
            TargetError: the repo holds a report of another stream, or of this one with more entries.
        """
        if self.target is None or self.target.report is None:
            return None
        report = RunReport.from_dict(self.target.report)
        same = self.common_steps(report)
        if same == len(report.steps):
            return report
        if self.replay:
            return report.until(same) if same else None
        other = report.steps[same]
        repo, tag = self.target.repo, step_tag(other.step)
        if other.step > self.length:
            raise TargetError(
                f"target repo {repo} is at {tag} ({other.name}), but the recipe has only {self.length} entries: an "
                "entry was removed from the recipe",
                hint="put the entry back, or run with --replay to make the stream anew from where it differs",
            )
        raise TargetError(
            f"target repo {repo} holds another stream: {self._difference(report, other)}",
            hint="publish to another repo, restore the recipe that made it (hubmerge.yaml in that repo), or run with "
            "--replay to make the stream anew from where it differs",
        )

    def _difference(self, report: RunReport, other: StepReport) -> str:
        """What sets a published step apart from the recipe's step of that number, in words."""
        tag, ours, base = step_tag(other.step), self.lock.models[other.step - 1], self.lock.base_model
        if (other.reference, other.commit) != (str(ours.reference), ours.commit):
            return (
                f"its {tag} merged {other.reference} at {short_commit(other.commit)}; the recipe's step {other.step} "
                f"is {ours.reference} at {short_commit(ours.commit)}"
            )
        if report.base_model.commit != base.commit:
            merged = report.base_model
            return (
                f"its base model is {merged.reference} at {short_commit(merged.commit)}, the recipe's {base.reference} "
                f"at {short_commit(base.commit)}"
            )
        if report.merge_method != self.recipe.merge_method:
            return f"it was merged by {report.merge_method}, the recipe says {self.recipe.merge_method}"
        pairs = (json.dumps(dict(values), sort_keys=True) for values in (report.parameters, self.recipe.parameters))
        theirs, wanted = map(json.loads, pairs)
        differing = sorted(key for key in {*theirs, *wanted} if theirs.get(key) != wanted.get(key))
        if differing:
            return f"it was merged with another value of {', '.join(differing)} than the recipe has"
        where = "in all steps" if other.step == 1 else f"from {tag} on"
        return (
            f"the models are the recipe's, but {where} something else has changed: a parameter of an entry, an "
            "adapter, dtype, out_dtype or the tensor rules"
        )

    def common_steps(self, report: RunReport) -> int:
        """Return how many of a report's first steps are this stream's, resting on the same inputs."""
        same = 0
        for step in report.steps[: self.length]:
            if step.chain_digest != self.chain[step.step]:
                break
            same = step.step
        return same


def resolve_stream(
    loaded: LoadedRecipe,
    workspace: Workspace | None,
    *,
    locked: bool = False,
    update: bool = False,
    replay: bool = False,
) -> Stream:
    """Resolve every reference of the recipe to a commit, before anything is read.

    What an earlier run of the same stream published or left in the work folder keeps its commit, and so does what the
    lock beside the recipe names: a stream does not change because a source repo moved on. With `on_update: append` a
    new commit of a merged checkpoint becomes an entry of its own, at the end.

    With `locked`, everything is taken from the lock beside the recipe. With `update`, only what is published is kept.
    With `replay`, the recipe's own order counts, also where it differs from what is merged; with `on_update: replay`
    so do the newest commits of its checkpoints.

    Raises:
        HubError: a repo or revision is missing, private or gated, or the target repo holds something else.
        RecipeError: the lock beside the recipe is missing or does not fit, where `locked` asks for it.
    """
    publish = loaded.recipe.publish
    target = read_target(publish.repo) if publish is not None else None
    if locked:
        growth, lock = _from_lock_beside(loaded, target)
    else:
        held = PinnedCommits.gather(loaded, target, workspace, update=update)
        replay = replay or loaded.recipe.on_update == "replay"
        known, merged = ((), 0) if replay else (held.models, held.merged)
        growth = expand(loaded.recipe, known, merged, find_models, newest_commits)
        if not growth.entries:
            raise HubError(f"{loaded.path}: its queries find no model on the Hub", hint="check author, name and tags")
        resolver = SourceResolver(held.locks, models=loaded.recipe.on_update != "replay")
        if workspace is not None:
            new = [entry.model for entry in growth.entries if entry.name not in growth.settled]
            scored = loaded.recipe.evaluate is not None
            resolver.look_ahead(loaded.recipe.base_model, new, classes=scored)
        lock = lock_recipe(loaded, resolver, entries=growth.entries, settled=growth.settled)
    if workspace is not None:
        write_text_atomic(workspace.lock_file, lock.to_yaml())
    settled = replace(loaded, recipe=loaded.recipe.with_stream(growth.entries))
    return Stream(settled, lock, chain_digests(settled.recipe, lock), target, replay)


def _from_lock_beside(loaded: LoadedRecipe, target: Target | None) -> tuple[Expansion, Lock]:
    lock = require_lock(loaded)
    check_published(lock, target)
    growth = expand(loaded.recipe, lock.models, len(lock.models), lambda _: (), None)
    drawn = lock_recipe(loaded, SourceResolver([lock]), entries=growth.entries, settled=growth.settled)
    check_same(drawn, lock, str(lock_path(loaded.path)))
    return growth, drawn
