"""A recipe with every reference settled: which commits are merged in which order, and what each step rests on."""

from __future__ import annotations

from dataclasses import dataclass

from hubmerge.errors import TargetError
from hubmerge.hub.publish import Target, read_target, step_tag
from hubmerge.report import RunReport
from hubmerge.sources import Source, SourceResolver
from hubmerge.workspace import Workspace
from merge_recipes import LoadedRecipe, Lock, Recipe, StreamEntry, chain_digests, lock_recipe


@dataclass(frozen=True)
class Stream:
    """What a run merges. `chain[t]` identifies everything that step t rests on; `chain[0]` is the start.

    `target` is what the repo to publish to holds, None where the recipe publishes nothing.
    """

    loaded: LoadedRecipe
    lock: Lock
    chain: tuple[str, ...]
    target: Target | None

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
        return Source.of(self.lock.models[step - 1])

    @property
    def length(self) -> int:
        """How many steps the stream has."""
        return len(self.lock.models)

    def published_report(self) -> RunReport | None:
        """Return the report at the head of the target repo, checked to be of this very stream.

        Raises:
            TargetError: the repo holds a report of another stream, or of this one with more entries.
        """
        if self.target is None or self.target.report is None:
            return None
        report = RunReport.from_dict(self.target.report)
        repo = self.target.repo
        for step in report.steps:
            if step.step > self.length:
                raise TargetError(
                    f"target repo {repo} is at {step_tag(step.step)} ({step.name}), but the recipe has only "
                    f"{self.length} entries: an entry was removed from the recipe",
                    hint="put the entry back, or publish to another repo",
                )
            if step.chain_digest != self.chain[step.step]:
                raise TargetError(
                    f"target repo {repo} holds another stream: its {step_tag(step.step)} merged {step.reference} at "
                    f"{step.commit[:12]}; the recipe's step {step.step} is {self.lock.models[step.step - 1].reference}"
                    " or rests on another base model, method, parameter or earlier entry",
                    hint="publish to another repo, or restore the recipe that made it (hubmerge.yaml in that repo)",
                )
        return report


def settle(loaded: LoadedRecipe, workspace: Workspace | None) -> Stream:
    """Resolve every reference of the recipe to a commit, before anything is read.

    What an earlier run of the same stream published or left in the work folder keeps its commit: a stream does not
    change because a source repo moved on.

    Raises:
        HubError: a repo or revision is missing, private or gated, or the target repo holds something else.
    """
    publish = loaded.recipe.publish
    target = read_target(publish.repo) if publish is not None else None
    held = []
    if target is not None and target.lock is not None:
        held.append(Lock.from_yaml(target.lock, file=f"{target.repo}/hubmerge.lock.yaml"))
    if workspace is not None and workspace.lock_file.is_file():
        held.append(Lock.from_yaml(workspace.lock_file.read_text(encoding="utf-8"), file=str(workspace.lock_file)))
    lock = lock_recipe(loaded, SourceResolver(held))
    if workspace is not None:
        workspace.write_text(workspace.lock_file, lock.to_yaml())
    return Stream(loaded, lock, chain_digests(loaded.recipe, lock), target)
