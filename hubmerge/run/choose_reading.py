"""Choice of the method that reads the merged model of a step, on the task that the recipe names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hubmerge.errors import EvaluationError
from hubmerge.executor import InMemoryModel, Merge, ReadOut
from hubmerge.executor.state import State
from hubmerge.methods import method_named
from hubmerge.plan.settings import input_dtype
from hubmerge.report.reading import ReadingReport, ReadReport, best_place, reading_text
from hubmerge.report.report import MetricValue
from hubmerge.run.run_context import RunContext
from hubmerge.run.task_inputs import data_report
from hubmerge.stream.task_steps import first_choice
from merge_recipes import Task, TensorParameters
from merge_recipes.overlaps import choice_overlap
from merge_recipes.reading import Read, Reading


@dataclass(frozen=True)
class ChosenReading:
    """The read-out that was chosen for a step, and the report of the choice."""

    read_out: ReadOut
    report: ReadReport


def choose_reading(
    context: RunContext, step: int, state: State, recorded: Mapping[int, ReadReport]
) -> ChosenReading | None:
    """Score the read-outs of a recipe and choose the best one; None if the recipe leaves no choice.

    There is none either before the step of the entry whose own head scores the task.

    A recorded choice between the same read-outs is taken if it is the best one by its own scores: another machine
    may round nearly equal scores to another order.

    Args:
        context: The run.
        step: The step.
        state: The state after it.
        recorded: Choices that were published, by step.

    Raises:
        EvaluationError: A score is not a finite number.
    """
    read = context.stream.recipe.read
    if read is None or step < first_choice(context.stream.recipe):
        return None
    task = next(task for task in context.scoreboard.all_tasks if task.name == read.on)
    outs = [read_out_of(context, one) for one in read.choose]
    models = [_model(context, step, state, one, out) for one, out in zip(read.choose, outs, strict=True)]
    report = _scored(context, read, task, models)
    known = recorded.get(step)
    if known is not None and known.same_readings(report) and known.chosen == known.best_place:
        report = replace(report, chosen=known.chosen)
    context.progress.note(f"step {step}: {choice_text(report)}")
    return ChosenReading(outs[report.chosen - 1], report)


def _scored(context: RunContext, read: Read, task: Task, models: Sequence[InMemoryModel]) -> ReadReport:
    """Score the model of each read-out, and return the report of the choice."""
    board = context.scoreboard
    found = [board.score_on(model.label, [task], model)[task.name] for model in models]
    metric = read.metric or _first_number(found[0], board.metrics_of(task))
    best = read.best or ("lowest" if metric == "perplexity" else "highest")
    scores = [_score(task, metric, model.label, values) for model, values in zip(models, found, strict=True)]
    sources = zip(task.dataset.sources, context.stream.lock.commits_of(task.dataset), strict=True)
    _, *more_data = (data_report(task.dataset, source, commit) for source, commit in sources)
    return ReadReport(
        task=task.name,
        dataset=task.dataset.written_path,
        subset=task.dataset.name,
        split=task.dataset.split,
        commit=board.commit_of(task),
        metric=metric,
        best=best,
        chosen=best_place(scores, lowest=best == "lowest"),
        readings=tuple(
            ReadingReport(one.method, score, dict(one.parameters))
            for one, score in zip(read.choose, scores, strict=True)
        ),
        scored=not task.validation,
        more_data=tuple(more_data),
    )


def read_out_of(context: RunContext, reading: Reading) -> ReadOut:
    """Return the read-out of a method with its parameters."""
    method, recipe = method_named(reading.method), context.stream.recipe
    changes = {"merge_method": reading.method, "parameters": dict(reading.parameters), "read": None}
    parameters = TensorParameters(
        method.Parameters, recipe.model_copy(update=changes), None, context.plan.merge.positions
    )
    return Merge(context.base, method, context.plan.merge).reading(parameters)


def choice_text(report: ReadReport) -> str:
    """Return the choice in one line."""
    values = "; ".join(f"{one.text}: {one.score:.4f}" for one in report.readings)
    choice = report.choice
    return f"read by {'-' if choice is None else choice.text}, {report.metric} on {report.task}: {values}"


def overlap_warnings(context: RunContext) -> list[str]:
    """Return a warning if the task that decides is scored too, or has the examples of a task that is."""
    found = choice_overlap(context.stream.recipe)
    return [] if found is None else [found]


def _model(context: RunContext, step: int, state: State, reading: Reading, read_out: ReadOut) -> InMemoryModel:
    """Return the model that a method reads out of a state."""
    return InMemoryModel(
        context.base,
        state,
        context.plan.merge,
        label=f"step {step}, read by {reading_text(reading.method, dict(reading.parameters))}",
        input_dtype=input_dtype(context.stream.recipe),
        read_out=read_out,
    )


def _first_number(values: Mapping[str, MetricValue], metrics: Sequence[str]) -> str:
    """Return the first metric whose value is a number; the first one if there is none."""
    return next((name for name in metrics if isinstance(values.get(name), (int, float))), metrics[0])


def _score(task: Task, metric: str, label: str, values: Mapping[str, MetricValue]) -> float:
    """Return the value of a metric for one of the models.

    Raises:
        EvaluationError: It is not a finite number.
    """
    value = values.get(metric)
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    raise EvaluationError(
        f"task {task.name}: {label}: {metric} is {value}, expected a number to choose by",
        hint="name another metric under `read`",
    )
