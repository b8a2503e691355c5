"""Plans: what a run would do, from file headers alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubmerge.api.progress import ProgressOption, open_progress
from hubmerge.api.recipes import RecipeLike, load
from hubmerge.support import interrupts
from hubmerge.support.terminal import terminal_columns

if TYPE_CHECKING:
    from hubmerge.plan.run_plan import RunPlan


@dataclass(frozen=True)
class PlannedStep:
    """One step of a plan."""

    step: int
    """Number of the step, from 1."""
    name: str
    """Name of the checkpoint in the recipe."""
    reference: str
    """Reference of the checkpoint, as in the recipe."""
    commit: str
    """Commit of the checkpoint, or the digest of a local folder."""
    done: bool
    """True if the step is already published."""
    download_bytes: int
    """Bytes of the checkpoint that are not on this machine yet."""


@dataclass(frozen=True)
class Plan:
    """Plan of a run of a recipe; `str(plan)` gives the text that `hubmerge plan` prints, on one screen."""

    steps: tuple[PlannedStep, ...]
    """All steps of the stream in merge order."""
    merge_method: str
    """Name of the merge method."""
    download_bytes: int
    """Bytes to download from the Hub."""
    work_bytes: int
    """Bytes needed in the work folder."""
    memory_bytes: int
    """Estimated peak of memory, in bytes."""
    estimated_seconds: float
    """Rough estimate of the time for merging on one core, without downloads and evaluation."""
    weight_matrices: int
    """Number of tensors merged as matrices."""
    other_tensors: int
    """Number of other merged tensors, without statistics."""
    averaged: tuple[str, ...]
    """Statistics, such as the variances of batch normalization: they are averaged over the checkpoints."""
    kept: Mapping[str, str]
    """Tensors that keep the values of the base model: name to reason."""
    ignored: tuple[str, ...]
    """Tensors of checkpoints that are not used, each with the reason."""
    text: str
    """The plan as text, on one screen; lines are fitted to the terminal that it is made on."""
    details: str
    """The plan as text with all steps, tensors and notes, as in `hubmerge plan --verbose`."""
    data: Mapping[str, Any]
    """The plan as plain JSON values, as in `hubmerge plan --json`."""

    @classmethod
    def of(cls, plan: RunPlan) -> Plan:
        """Summarize the plan of the executor."""
        from hubmerge.plan.screen import screen_text
        from hubmerge.plan.text import plan_text
        from hubmerge.plan.values import plan_values

        data, columns = plan_values(plan), terminal_columns()
        steps = tuple(
            PlannedStep(
                step=one["step"],
                name=one["name"],
                reference=one["reference"],
                commit=one["commit"],
                done=one["step"] < plan.first_step,
                download_bytes=plan.missing_bytes_of(one["step"]) if one["step"] >= plan.first_step else 0,
            )
            for one in data["steps"]
        )
        return cls(
            steps=steps,
            merge_method=data["merge_method"],
            download_bytes=data["download_bytes"],
            work_bytes=data["work_bytes"],
            memory_bytes=data["memory_bytes"],
            estimated_seconds=data["estimated_seconds"],
            weight_matrices=data["weight_matrices"],
            other_tensors=data["other_tensors"],
            averaged=tuple(data["averaged"]),
            kept=data["kept"],
            ignored=tuple(data["ignored"]),
            text=screen_text(plan, columns),
            details=plan_text(plan, columns),
            data=data,
        )

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        return dict(self.data)


def plan(recipe: RecipeLike, *, progress: ProgressOption = "auto") -> Plan:
    """Plan a run from file headers alone: nothing is downloaded whole and nothing is written.

    Args:
        recipe: the path of a YAML file, a dict with the keys of a recipe, or a loaded recipe.
        progress: see `hubmerge.run`.

    Raises:
        RecipeError: the recipe has problems.
        CheckpointError: names or shapes of the checkpoints do not fit the base model.
        HubError: a repo cannot be read.
    """
    from hubmerge.plan.whole_plan import plan_run

    reports = open_progress(progress)
    with interrupts.handled():
        return Plan.of(plan_run(load(recipe, progress=reports), reports))
