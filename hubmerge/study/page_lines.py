"""Lines of the charts on the page of a study: means over the orders of each variant, with their deviations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from hubmerge.report_page.charts import Line
from hubmerge.study.results import CellResult, StepResult, Summary, grouped

_Value = Callable[[Sequence[StepResult], int], "float | None"]
"""Returns a value of the step at an index, from all steps of a merge."""


def accuracy(scored: Sequence[CellResult]) -> list[Line]:
    """Return the average accuracy over the tasks seen so far by step, in percent."""
    found = []
    for (label,), group in grouped(scored, "label").items():
        matrices = [result.accuracies for result in group]
        steps = matrices[0].steps
        found.append(_line(label, steps, [_percents(matrix.average(step) for matrix in matrices) for step in steps]))
    return found


def sweep(scored: Sequence[CellResult], parameter: str) -> list[Line]:
    """Return the accuracy after the last step by the value of a swept parameter, in percent."""
    found = []
    for (series,), group in grouped(scored, "series").items():
        points = [result for result in group if isinstance(result.point.get(parameter), (int, float))]
        values = sorted({float(result.point[parameter]) for result in points})
        summaries = [_percents(one.average for one in points if one.point[parameter] == value) for value in values]
        found.append(_line(series, values, summaries))
    return found


def statistic(results: Sequence[CellResult], name: str) -> list[Line]:
    """Return a statistic of the steps by step."""
    return _by_step(results, lambda steps, n: getattr(steps[n], name))


def drift(results: Sequence[CellResult]) -> list[Line]:
    """Return the distance of the merged model from the base by step, in units of the mean task vector so far."""

    def relative(steps: Sequence[StepResult], n: int) -> float | None:
        norms = [step.task_vector_norm for step in steps[: n + 1]]
        moved, known = steps[n].drift, [norm for norm in norms if norm is not None]
        total = sum(known)
        return None if moved is None or len(known) < len(norms) or not total else moved * len(known) / total

    return _by_step(results, relative)


def _by_step(results: Sequence[CellResult], value: _Value) -> list[Line]:
    found = []
    for (label,), group in grouped(results, "label").items():
        steps = range(len(group[0].steps))
        summaries = [Summary.of(value(result.steps, n) for result in group) for n in steps]
        found.append(_line(label, [n + 1 for n in steps], summaries))
    return found


def _percents(values: Iterable[float | None]) -> Summary:
    return Summary.of(None if value is None else 100 * value for value in values)


def _line(name: str, places: Sequence[float], summaries: Sequence[Summary]) -> Line:
    known = [(place, one) for place, one in zip(places, summaries, strict=True) if one.mean is not None]
    points = tuple((place, one.mean) for place, one in known if one.mean is not None)
    return Line(name, points, spread=tuple(one.deviation or 0.0 for _, one in known))
