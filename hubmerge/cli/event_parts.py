"""Parts of the lines of `--json`: what several events, or the rows of one, consist of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    """A part of a line."""

    model_config = ConfigDict(extra="forbid")


class Scores(Part):
    """The accuracy matrix and its measures."""

    tasks: list[str]
    first_steps: list[int] = Field(description="the step that merged the checkpoint of each task")
    rows: dict[str, dict[str, float]] = Field(description="accuracies, 0 to 1, by step and task")
    base_model: dict[str, float] = Field(description="accuracies of the base model")
    own_checkpoints: dict[str, float] = Field(description="accuracies of each task's own checkpoint")
    average: float | None
    backward_transfer: float | None
    forgetting: float | None
    share_of_own: float | None
    taken_out: dict[str, int] = Field(
        default={}, description="tasks that count no more, by the step that took them out"
    )


class MethodParameter(Part):
    """A parameter of a merge method."""

    name: str
    description: str
    required: bool
    default: Any
    per_tensor: bool = Field(description="its value may depend on the tensor")
    per_entry: bool = Field(description="an entry of the stream may have its own value")
    values: dict[str, Any] = Field(description="JSON Schema of a value: type, choices and bounds")


class StudySummary(Part):
    """Mean and standard deviation over the merges of a variant; the deviation is null for one merge."""

    mean: float
    deviation: float | None


class StudyDifference(Part):
    """Difference in accuracy to the first variant, with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


class StudyRow(Part):
    """A row of the table of a study: a variant, or with 0 merges the base model or the own checkpoints."""

    label: str
    tasks: int = Field(description="number of tasks")
    merges: int = Field(description="merges that the values are means over; 0 for a row of references")
    accuracy: StudySummary | None = Field(description="share, not percent; null if nothing was scored")
    backward_transfer: StudySummary | None
    forgetting: StudySummary | None
    share_of_own: StudySummary | None
    to_first: StudyDifference | None = Field(description="null for the first variant, and without kept answers")
