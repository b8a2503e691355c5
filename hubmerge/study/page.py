"""Results of a study as one HTML page that needs no other file and no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hubmerge.errors import UsageError
from hubmerge.report.accuracy import mean_or_none, percent
from hubmerge.report_page.charts import dot_chart, line_chart
from hubmerge.report_page.document import document
from hubmerge.report_page.markup import EMPTY, Cell, cosine, number, section, table, tag, text
from hubmerge.study import page_lines as lines
from hubmerge.study.results import RESULTS_FILE, CellResult, References, ResultsFile, Summary, grouped, longest
from hubmerge.study.swept import swept_parameters
from hubmerge.study.tables import DEFINITIONS, summary_rows, table_rows
from hubmerge.support.text import counted

MOST_NAMES = 40
"""Number of checkpoints up to which the page has the map of their cosines."""


def page_of_results(folder: Path) -> str:
    """Return the page of all results in the folder of a study.

    Raises:
        UsageError: the folder has no results.
        HubmergeError: a line of the results cannot be read.
    """
    file = ResultsFile(folder / RESULTS_FILE)
    if not file.cells or not file.references:
        hint = "finish the study with `hubmerge study STUDY --out DIR`"
        raise UsageError(f"{folder / RESULTS_FILE} has no result", hint=hint, file=str(folder / RESULTS_FILE))
    return study_page([*file.cells.values()], [*file.references.values()][-1], folder.absolute().name)


def study_page(results: Sequence[CellResult], references: References, title: str) -> str:
    """Return the page of a study.

    Args:
        results: the merges.
        references: the accuracies of base model and checkpoints.
        title: the name of the study.
    """
    long = longest(results)
    scored = [result for result in long if result.matrix["rows"]]
    sections = [
        section("scores", "Scores", _scores(results, references), _definitions()),
        section(
            "curves", "Accuracy on the tasks seen so far", line_chart(lines.accuracy(scored), "percent", unit=" %")
        ),
        section("tasks", "Accuracy on each task after the last step", _tasks(scored, references)),
        section("sweeps", "Swept parameters", *_sweeps(scored)),
        section("orders", "Spread over the orders", *_orders(scored)),
        section("norms", "Drift, λ, ranks and removed shares", *_norms(long)),
        section("similarities", "Similarity of the task vectors", _similarities(references), _layers(references)),
        section("matrices", "Accuracy matrices", *_matrices(scored)),
        section("merges", "All merges", _merges(results)),
    ]
    variants = len(grouped(results, "label"))
    told = f"{counted(len(results), 'merge')} of {counted(variants, 'variant')}"
    told += f", {counted(len(references.names), 'checkpoint')}."
    return document(title, "\n".join([tag("p", told, class_="summary"), *filter(None, sections)]))


def _scores(results: Sequence[CellResult], references: References) -> str:
    header, rows = table_rows(summary_rows(results, references))
    caption = "In percent: mean ± standard deviation over the merges; differences with their 95 % interval"
    return table(header, [[_read(value) for value in row] for row in rows], caption)


def _read(value: str) -> Cell:
    """Return a cell that sorts by the number at its beginning."""
    try:
        return Cell(text(value), float(value.split()[0].replace("−", "-")))
    except (ValueError, IndexError):
        return Cell(text(value))


def _definitions() -> str:
    return tag("ul", "".join(tag("li", text(one)) for one in DEFINITIONS))


def _tasks(scored: Sequence[CellResult], references: References) -> str:
    groups = grouped(scored, "label")
    if not groups:
        return ""
    names = scored[0].accuracies.tasks
    rows = []
    for name in names:
        last = [
            Summary.of(result.accuracies.value(max(result.accuracies.rows), name) for result in group)
            for group in groups.values()
        ]
        first = [_percent(references.base.get(name)), _percent(references.own.get(name))]
        rows.append([Cell(text(name)), *first, *(Cell(one.percent(), one.mean, heat=one.mean) for one in last)])
    head = ["task", "base model", "own checkpoint", *(label for (label,) in groups)]
    return table(head, rows, "In percent: mean ± standard deviation over the merges")


def _percent(value: float | None) -> Cell:
    return Cell(percent(value), value, heat=value)


def _sweeps(scored: Sequence[CellResult]) -> list[str]:
    label = "average accuracy (%)"
    return [line_chart(lines.sweep(scored, name), label, unit=" %", across=name) for name in swept_parameters(scored)]


def _orders(scored: Sequence[CellResult]) -> list[str]:
    groups = [(label, group) for (label,), group in grouped(scored, "label").items() if len(group) > 1]
    if not groups:
        return []
    values = [(label, [100 * one.average for one in group if one.average is not None]) for label, group in groups]
    rows = []
    for label, numbers in values:
        summary = Summary.of(value / 100 for value in numbers)
        extremes = [Cell(f"{one:.1f}", one) for one in (min(numbers, default=0.0), max(numbers, default=0.0))]
        rows.append([Cell(text(label)), number(len(numbers)), Cell(summary.percent(), summary.mean), *extremes])
    caption = "Average accuracy after the last step, in percent, over the orders"
    spread = table(["merged by", "orders", "mean", "lowest", "highest"], rows, caption)
    return [dot_chart(values, "average accuracy after the last step (%)", unit=" %"), spread]


def _norms(long: Sequence[CellResult]) -> list[str]:
    labels = {
        "scale": "λ",
        "removed_share": "removed share",
        "rank": "mean rank",
        "task_vector_norm": "norm of the task vector",
    }
    charts = [line_chart(lines.drift(long), "distance from the base / task vector")]
    return [*charts, *(line_chart(lines.statistic(long, name), label) for name, label in labels.items())]


def _similarities(references: References) -> str:
    names = references.names
    known = any(value is not None for row in references.cosines for value in row)
    if not known or len(names) > MOST_NAMES:
        return ""
    rows = [
        [Cell(text(name)), *(cosine(value, f"{name}, {other}") for value, other in zip(values, names, strict=True))]
        for name, values in zip(names, references.cosines, strict=True)
    ]
    return table(["", *names], rows, "Cosines between the task vectors", sortable=False)


def _layers(references: References) -> str:
    rows = []
    for layer, cosines in references.layers.items():
        pairs = [value for i, row in enumerate(cosines) for value in row[:i] if value is not None]
        if pairs:
            means = [mean_or_none(pairs), mean_or_none([abs(value) for value in pairs]), max(pairs, key=abs)]
            rows.append([Cell(f"<code>{text(layer)}</code>"), *map(number, means)])
    head = ["layer", "mean cosine", "mean size", "largest"]
    return table(head, rows, "Cosines between the task vectors in each layer, over all pairs") if rows else ""


def _matrices(scored: Sequence[CellResult]) -> list[str]:
    found = []
    for (label,), group in grouped(scored, "label").items():
        one, matrix = group[0], group[0].accuracies
        rows = []
        for step in matrix.steps:
            values = [*(matrix.value(step, task) for task in matrix.tasks), matrix.average(step)]
            name = one.order[step - 1] if step <= len(one.order) else ""
            rows.append(
                [Cell(f"{step} {text(name)}"), *(EMPTY if value is None else _percent(value) for value in values)]
            )
        order = "" if one.seed is None else f", order {one.seed}"
        caption = f"Accuracy in percent of {label}{order}: a row for each step, a column for each task"
        inner = table(["step", *matrix.tasks, "average"], rows, caption, sortable=False)
        found.append(tag("details", f"<summary>{text(label)}{order}</summary>{inner}"))
    return found


def _merges(results: Sequence[CellResult]) -> str:
    rows = []
    for one in results:
        order = "recipe" if one.seed is None else str(one.seed)
        shares = [one.average, one.backward_transfer, one.forgetting, one.share_of_own]
        cells = [Cell(percent(value), value) for value in shares]
        order_cell = Cell(order, None if one.seed is None else one.seed, tip=", ".join(one.order))
        rows.append([Cell(text(one.label)), number(one.tasks), order_cell, *cells, number(one.seconds)])
    head = ["merged by", "tasks", "order", "accuracy", "backward transfer", "forgetting", "share kept", "seconds"]
    return tag("details", f"<summary>{counted(len(results), 'merge')}</summary>" + table(head, rows, "In percent"))
