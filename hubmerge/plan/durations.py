"""Estimates of the duration of a run: of the merges, and of the evaluation of the merged models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hubmerge.plan.run_plan import RunPlan
from hubmerge.plan.speeds import merge_factor, seconds_per_example
from hubmerge.stream.task_steps import first_choice, first_steps
from hubmerge.support.text import counted, readable_seconds
from merge_recipes import task_entries

COUNTED = "counted operations"
MEASURED = "an earlier run on this machine"

EVALUATION_FLOPS_PER_SECOND = 20e9
"""Speed of one core in the float32 forward pass of a transformer; good enough for an estimate."""

TOKENS = 128
"""Tokens of an example if the config does not give the number of its patches."""


@dataclass(frozen=True)
class Durations:
    """Durations of a run in seconds, without downloads and uploads.

    Attributes:
        merge_seconds: Duration of all merges.
        merge_basis: What the estimate is from.
        evaluation_seconds: Duration of the evaluation; 0 without tasks.
        evaluation_basis: What the estimate is from, None without tasks.
        examples: Number of examples, those of a task once for each scored model.
        complete: False if the number of examples of a task is known after its download only.
    """

    merge_seconds: float
    merge_basis: str
    evaluation_seconds: float = 0.0
    evaluation_basis: str | None = None
    examples: int = 0
    complete: bool = True

    def texts(self) -> list[str]:
        """Return one sentence for the merges, and one for the evaluation."""
        found = [f"merge: about {readable_seconds(self.merge_seconds)} ({_reason(self.merge_basis)})"]
        if self.evaluation_basis is not None:
            least = "about" if self.complete else "at least"
            found.append(
                f"evaluation: {least} {readable_seconds(self.evaluation_seconds)} for "
                f"{counted(self.examples, 'example')} ({_reason(self.evaluation_basis)})"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the durations as plain JSON values."""
        return {
            **asdict(self),
            "merge_seconds": round(self.merge_seconds, 3),
            "evaluation_seconds": round(self.evaluation_seconds, 3),
        }


def _reason(basis: str) -> str:
    if basis == MEASURED:
        return "as an earlier run on this machine"
    return "counted on one core; the first run measures it"


def estimate(plan: RunPlan) -> Durations:
    """Estimate the durations of a run."""
    merge = _merge_seconds(plan)
    factor = merge_factor(plan.stream.recipe.merge_method, merge / max(1, len(plan.steps)))
    seconds, basis = (merge, COUNTED) if factor is None else (merge * factor, MEASURED)
    seconds += sum(estimate(stage).merge_seconds for stage in plan.stages)
    if plan.stream.recipe.evaluate is None or not plan.steps:
        return Durations(seconds, basis)
    return _with_evaluation(plan, seconds, basis)


def _merge_seconds(plan: RunPlan) -> float:
    """Return the duration of all merges on one core, from the number of operations and the bytes of the state."""
    return len(plan.steps) * plan.counted_seconds


def _with_evaluation(plan: RunPlan, seconds: float, basis: str) -> Durations:
    passes, total, examples, measured, complete = _passes(plan), 0.0, 0, True, True
    evaluate = plan.stream.recipe.evaluate
    sizes = {task.name: task.examples for task in plan.tasks}
    for task in evaluate.tasks if evaluate is not None else ():
        size = sizes.get(task.name)
        complete = complete and size is not None
        number = passes[task.name] * (size or 0)
        speed = seconds_per_example(task.kind, sum(tensor.elements for tensor in plan.merge.tensors))
        measured = measured and speed is not None
        total += number * (speed if speed is not None else _counted_per_example(plan))
        examples += number
    return Durations(seconds, basis, total, MEASURED if measured else COUNTED, examples, complete)


def _passes(plan: RunPlan) -> Mapping[str, int]:
    """Return how many models are scored on each task.

    They are the merged models, once its own checkpoint and the base model, and on the task of `read` every read-out of
    a step. A task for validation has the read-outs alone.
    """
    stream, first = plan.stream, first_steps(plan.stream)
    owners = task_entries(stream.recipe)
    scored = [step for step in plan.steps if stream.needs_model(step)]
    read, found = stream.recipe.read, {}
    for task in stream.recipe.all_tasks:
        after = sum(step >= first[task.name] for step in scored)
        new = first[task.name] in plan.steps
        found[task.name] = 0 if task.validation else after + new * (1 + (owners[task.name] is not None))
        if read is not None and task.name == read.on:
            found[task.name] += len(read.choose) * sum(step >= first_choice(stream.recipe) for step in scored)
    return found


def _counted_per_example(plan: RunPlan) -> float:
    return 2 * plan.merge.elements * _tokens(plan.config) / EVALUATION_FLOPS_PER_SECOND


def _tokens(config: Mapping[str, Any]) -> int:
    """Return the number of patches of an image by a config, else a usual number of tokens."""
    for part in (config, config.get("vision_config")):
        if isinstance(part, Mapping):
            image, patch = part.get("image_size"), part.get("patch_size")
            if isinstance(image, int) and isinstance(patch, int) and patch > 0:
                return int((image // patch) ** 2 + 1)
    return TOKENS
