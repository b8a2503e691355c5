"""Lines of `--json`: one class for each event, and their JSON Schema, which `hubmerge schema --events` prints."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from hubmerge.cli.event_parts import MethodParameter, Scores, StudyRow

EVENTS_VERSION = 1
"""Version of the events: it is raised when a field is removed or changes its meaning, not when one is added."""


class Event(BaseModel):
    """A line of output."""

    model_config = ConfigDict(extra="forbid")


class Note(Event):
    """A sentence for people."""

    event: Literal["note"]
    text: str


class Stage(Event):
    """The end of a part of the work."""

    event: Literal["stage"]
    title: str
    seconds: float = Field(description="duration of the part")


class Error(Event):
    """The error that ends the command; the last line."""

    model_config = ConfigDict(extra="allow")
    event: Literal["error"]
    code: str = Field(description="stable name of the kind of error")
    message: str
    hint: str | None
    exit_code: int
    problems: list[dict[str, Any]] = Field(default=[], description="single problems, each with its place")
    file: str | None = None
    line: int | None = None
    repo: str | None = None
    commit: str | None = None
    tensor: str | None = None


class Checked(Event):
    """`check`: a recipe was checked."""

    event: Literal["checked"]
    recipe: str
    valid: bool
    problems: list[str]
    merge_method: str | None = None
    checkpoints: int | None = Field(None, description="checkpoints that the recipe names")
    queries: int | None = Field(None, description="queries that find further checkpoints")


class Summary(Event):
    """`check FOLDER`: the last line."""

    event: Literal["summary"]
    recipes: int
    valid: int


class Planned(Event):
    """`plan`: what a run would do."""

    model_config = ConfigDict(extra="allow")
    event: Literal["plan"]
    merge_method: str
    steps: list[dict[str, Any]]
    download_bytes: int
    work_bytes: int
    memory_bytes: int
    estimated_seconds: float = Field(description="merging on one core, without downloads and evaluation")
    weight_matrices: int
    other_tensors: int
    parameters: dict[str, str] = Field(description="parameters of the method, defaults included")
    durations: dict[str, Any] = Field(description="estimated seconds of merges and evaluation, and what they are from")
    publish: dict[str, Any] | None = Field(description="target repo, tags and bytes to upload; null for none")
    warnings: list[str] = Field(description="what is or may be wrong")
    notes: list[str]
    kept: dict[str, str] = Field(description="tensors that stay the base model's, with the reason")


class Step(Event):
    """`run`, `revoke`, `demo`: a step is finished. The fields are those of a step in `hubmerge.json`."""

    model_config = ConfigDict(extra="allow")
    event: Literal["step"]
    step: int
    name: str
    reference: str
    commit: str
    scores: dict[str, dict[str, Any]] = Field(description="values by task and metric")


class RunDone(Event):
    """`run`, `revoke`, `demo`: the result."""

    event: Literal["done"]
    steps: int = Field(description="steps that this run merged")
    of: int = Field(description="steps of the stream")
    addresses: list[str]
    scores: Scores | None = Field(description="null if no task was scored")
    links: dict[str, str] = Field(description="addresses of repo, step, card and report; empty if nothing is published")
    next: list[dict[str, str]] = Field(description="what can be done next: `purpose` and `command`")


class Found(Event):
    """`verify`: the result of one check."""

    event: Literal["finding"]
    subject: str
    verdict: Literal["same", "differs", "unknown"]
    detail: str


class VerifyDone(Event):
    """`verify`: the result."""

    event: Literal["done"]
    verified: bool
    differences: int
    unknown: int


class Done(Event):
    """Other commands: what was written."""

    model_config = ConfigDict(extra="allow")
    event: Literal["done"]


class Inspection(Event):
    """`inspect`: what a checkpoint, a stream or a state is."""

    model_config = ConfigDict(extra="allow")
    event: Literal["inspection"]
    kind: str
    place: str
    parameters: int
    dtypes: dict[str, int]


class Difference(Event):
    """`diff`: the difference between two models."""

    model_config = ConfigDict(extra="allow")
    event: Literal["diff"]
    one: str
    other: str
    identical: bool
    whole: dict[str, Any] = Field(description="measures of all tensors together")
    layers: dict[str, dict[str, Any]] = Field(description="measures of each layer")
    tensors: list[dict[str, Any]] = Field(description="the tensors that were read, the largest difference first")


class LeaveOneOutScores(Event):
    """`inspect --leave-one-out`: what each entry gives to the merge."""

    model_config = ConfigDict(extra="allow")
    event: Literal["leave-one-out"]
    place: str
    method: str
    entries: list[dict[str, Any]]


class StudyTable(Event):
    """`study`: the table of its results."""

    event: Literal["study"]
    out: str = Field(description="folder with results, tables, page and plots")
    rows: list[StudyRow]
    definitions: list[str] = Field(description="what the measures mean")


class Locked(Event):
    """`lock`: the lock was written."""

    event: Literal["lock"]
    path: str
    changed: bool
    models: Any


class Outdated(Event):
    """`outdated`: what changed on the Hub."""

    event: Literal["outdated"]
    outdated: bool
    news: list[dict[str, Any]]


class MethodLine(Event):
    """`methods`: one merge method."""

    event: Literal["method"]
    name: str
    summary: str
    source: str
    parameters: list[str]
    distribution: str
    version: str
    fault: str | None
    form: Literal["stream", "joint"]
    description: str = Field("", description="what the method does, with its equations")
    parameter_details: list[MethodParameter] = Field(default=[], description="parameters with defaults and ranges")
    order_free: bool = Field(default=False, description="the order of the models changes nothing but rounding")
    revokes: bool = Field(default=False, description="an entry can be taken out of the merge again")
    combines: bool = Field(default=False, description="streams of one base model can be added to one")
    base_model: Literal["required", "optional", "model"] = Field("required", description="part of the base model")
    fewest: int = Field(1, description="smallest number of models besides the base model")
    most: int | None = Field(None, description="largest number of models besides the base model; null for any")
    papers: list[str] = Field(default=[], description="addresses of the papers that `source` names")


class Recipe(Event):
    """`init`: the recipe was written. The plan follows."""

    event: Literal["recipe"]
    path: str


class Workflow(Event):
    """`init --github`: the workflow was written."""

    event: Literal["workflow"]
    path: str


class HubJob(Event):
    """`deploy hub-job`: the job, before it is created."""

    model_config = ConfigDict(extra="allow")
    event: Literal["hub-job"]
    command: list[str]
    flavor: str


class Made(Event):
    """`deploy hub-job --yes`: the job was created."""

    event: Literal["made"]
    job: str | None
    webhook: str | None


class WatchCheck(Event):
    """`watch`: one check."""

    event: Literal["check"]
    at: str
    told: str
    steps: int
    failures: int


class Listening(Event):
    """`watch --listen`: the address for webhooks."""

    event: Literal["listening"]
    address: str


class Stopped(Event):
    """`watch`: the end."""

    event: Literal["stopped"]


EVENTS: tuple[type[Event], ...] = (
    Note, Stage, Error, Checked, Summary, Planned, Step, RunDone, Found, VerifyDone, Done, Inspection,
    Difference, LeaveOneOutScores, StudyTable,
    Locked, Outdated, MethodLine, Recipe, Workflow, HubJob, Made, WatchCheck, Listening, Stopped,
)  # fmt: skip


def events_schema() -> dict[str, Any]:
    """Return the JSON Schema of one line of `--json`."""
    places, schema = models_json_schema([(event, "validation") for event in EVENTS])
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:hubmerge:events:{EVENTS_VERSION}",
        "title": "hubmerge event",
        "description": "One line of standard output of a hubmerge command with --json.",
    }
    return {**head, "anyOf": [places[event, "validation"] for event in EVENTS], **schema}
