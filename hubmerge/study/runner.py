"""Run a study: merge the missing cells one after another, then write tables and plots of all cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hubmerge.cards import accuracy_picture
from hubmerge.errors import MachineError
from hubmerge.run.page import check_page_place
from hubmerge.study import plots, tables
from hubmerge.study.bench import Bench
from hubmerge.study.cells import Cell, cell_digest, cells
from hubmerge.study.merge_cell import merge_cells
from hubmerge.study.page import study_page
from hubmerge.study.results import RESULTS_FILE, TABLE_FILE, CellResult, References, ResultsFile, grouped
from hubmerge.study.schema import LoadedStudy
from hubmerge.study.shared_state import grouped_by_state
from hubmerge.study.swept import swept_parameters
from hubmerge.support.folder_lock import locked_folder
from hubmerge.support.names import PAGE_FILE
from hubmerge.support.progress import Progress
from hubmerge.support.text import counted

NAMED = 2
"""Cells of one merge that a title names."""


def run_study(
    loaded: LoadedStudy, out: Path, cache: Path, progress: Progress, *, memory_bytes: float | None = None
) -> list[CellResult]:
    """Merge and score the cells that are not in `out`/results.jsonl, then write tables and plots beside it.

    Nothing is published. A cell is identified by the digest of all its inputs, so that a study that is run again or
    extended computes the missing cells only.

    Args:
        loaded: the study.
        out: the folder of the results.
        cache: the folder for prepared tasks.
        progress: the receiver of notes and stages.
        memory_bytes: the memory for checkpoints and states, half of the free memory if None.

    Raises:
        HubmergeError: a source cannot be read, or a merge or a score fails.
        MachineError: `out` cannot be written.
    """
    _create_folder(out)
    check_page_place(out / PAGE_FILE)
    with locked_folder(out, "--out"), Bench.open(loaded, cache, progress, memory_bytes) as bench:
        file = ResultsFile(out / RESULTS_FILE)
        if bench.references_digest() not in file.references:
            file.add(bench.references())
        references = file.references[bench.references_digest()]
        commits, datasets = bench.commits, bench.datasets
        planned = list(cells(loaded.study, bench.stream.length))
        digests = [cell_digest(cell, bench.recipe, commits, datasets, loaded.study.score) for cell in planned]
        # Cells with equal digests, such as two names of one variant, are computed once.
        missing = {digest: cell for cell, digest in zip(planned, digests, strict=True) if digest not in file.cells}
        progress.note(f"{counted(len(planned), 'cell')}, {len(missing)} not computed yet")
        _merge_missing(bench, missing, references, file, loaded.study.score)
    results = [file.cells[digest].renamed(cell) for cell, digest in zip(planned, digests, strict=True)]
    write_outputs(results, references, out)
    return results


def _merge_missing(
    bench: Bench, missing: Mapping[str, Cell], references: References, file: ResultsFile, score: str
) -> None:
    """Merge and score the missing cells; those whose states are equal are merged once."""
    groups = grouped_by_state(bench, missing)
    if len(groups) < len(missing):
        bench.progress.note(f"{counted(len(groups), 'merge')}: cells whose states are equal share one")
    done = 0
    for group in groups:
        numbers = f"{done + 1}" if len(group) == 1 else f"{done + 1} to {done + len(group)}"
        with bench.progress.stage(f"{numbers} of {len(missing)}: {_group_text([merge.cell for merge in group])}"):
            for result in merge_cells(group, references, score=score, work=file.path.parent / "states"):
                file.add(result)
        done += len(group)


def _create_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(
            f"cannot create the folder {out}: {error.strerror}", hint="choose another folder with --out", file=str(out)
        ) from error


def _group_text(cells: Sequence[Cell]) -> str:
    """Return the labels of cells that are merged together, two at most, with their tasks and their order."""
    labels = [cell.label for cell in cells[:NAMED]]
    if len(cells) > NAMED:
        labels.append(f"{len(cells) - NAMED} more")
    order = "" if cells[0].seed is None else f", order {cells[0].seed}"
    return f"{'; '.join(labels)}, {counted(cells[0].tasks, 'task')}{order}"


def write_outputs(results: Sequence[CellResult], references: References, out: Path) -> None:
    """Write the table in three forms, the page and the plots."""
    rows = tables.summary_rows(results, references)
    for name, write in (("tables.md", tables.markdown), ("tables.tex", tables.latex), (TABLE_FILE, tables.as_json)):
        (out / name).write_text(write(rows), encoding="utf-8", newline="\n")
    (out / PAGE_FILE).write_text(study_page(results, references, out.absolute().name), encoding="utf-8", newline="\n")
    pictures = {"drift.png": plots.drift(results)}
    if any(any(value is not None for value in row) for row in references.cosines):
        pictures["similarity.png"] = plots.similarity_map(references)
    if any(result.matrix["rows"] for result in results):
        if any(len(result.matrix["rows"]) > 1 for result in results):
            pictures["accuracy_per_step.png"] = plots.accuracy_per_step(results)
        if any(len(group) > 1 for group in grouped(results, "label", "tasks").values()):
            pictures["orders.png"] = plots.order_spread(results)
        for parameter in swept_parameters(results):
            pictures[f"sweep_{parameter}.png"] = plots.sweep(results, parameter)
        for number, ((label,), group) in enumerate(grouped(results, "label").items(), start=1):
            if len(group[0].matrix["rows"]) < group[0].tasks:
                continue
            title = f"{label} (%)" + ("" if group[0].seed is None else f", order {group[0].seed}")
            matrix = group[0].accuracies
            pictures[f"matrix_{number:02d}.png"] = accuracy_picture(
                matrix,
                base=references.base,
                own=references.own,
                names=dict(enumerate(group[0].order, start=1)),
                title=title,
            )
    for name, content in pictures.items():
        (out / name).write_bytes(content)
