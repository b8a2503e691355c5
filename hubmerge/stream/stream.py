"""Streams: recipes whose references are resolved to commits, with the digests that each step depends on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from hubmerge.errors import HubmergeError, TargetError
from hubmerge.hub.publish import RESTORE_REPORT, Target
from hubmerge.report.history import report_until
from hubmerge.report.report import RunReport, StepReport
from hubmerge.stream.joint_steps import missing_inputs
from hubmerge.stream.replacements import is_half
from hubmerge.stream.sealed_report import sealed_report
from hubmerge.stream.sources import Source
from hubmerge.stream.stages import LockedRecipe, StageModel
from hubmerge.stream.step_history import history_reader
from hubmerge.support.names import step_tag
from hubmerge.support.text import counted, short_commit
from merge_recipes import LoadedRecipe, Lock, ModelReference, Recipe, StreamEntry

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
        stages: The other documents of the recipe's file that it needs, in the order of their merges.
        stage_models: The merged models of the stages, by name, as far as they are there.
    """

    loaded: LoadedRecipe
    lock: Lock
    chain: tuple[str, ...]
    target: Target | None
    replay: bool = False
    every_model: bool = False
    inputs: tuple[tuple[int, ...], ...] = ()
    stages: tuple[LockedRecipe, ...] = ()
    stage_models: Mapping[str, StageModel] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.loaded.recipe

    @property
    def base(self) -> Source:
        """The base model."""
        return self.placed(Source.of(self.lock.base_model))

    @cached_property
    def entries(self) -> tuple[StreamEntry, ...]:
        """The entries in merge order; step t merges `entries[t - 1]`, or those of `entries_of(t)`."""
        return self.recipe.stream()

    def source(self, entry: int) -> Source:
        """Return the checkpoint of an entry, by its number from 1, which is that of its step in a stream of folds."""
        return self.placed(Source.of(self.lock.models[entry - 1], self.base))

    def placed(self, source: Source) -> Source:
        """Return a source with the folder of the merged model if it is that of a stage."""
        model = self.stage_models.get(source.reference.stage or "")
        if model is None:
            return source
        reference = ModelReference(str(model.folder), written_path=str(source.reference))
        return replace(source, reference=reference, commit=model.commit)

    def of_stage(self, stage: LockedRecipe) -> Stream:
        """Return the stream of a stage; it has the merged models of the stages before it."""
        return Stream(stage.loaded, stage.lock, stage.chain, None, inputs=stage.inputs, stage_models=self.stage_models)

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
            "out_dtype, slices, state_dtype, tensors or the tokenizer"
        )

    def common_steps(self, report: RunReport) -> int:
        """Return the number of leading steps of a report that match this stream."""
        same = 0
        for step in report.steps[: self.length]:
            if step.chain_digest != self.chain[step.step]:
                break
            same = step.step
        return same
