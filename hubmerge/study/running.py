"""Run a study: the cells that are missing, one after another; then tables and plots of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hubmerge.cards import accuracy_picture
from hubmerge.errors import MachineError
from hubmerge.study import plots, tables
from hubmerge.study.bench import Bench
from hubmerge.study.cells import cell_digest, cells
from hubmerge.study.folding import fold_cell
from hubmerge.study.results import RESULTS_FILE, CellResult, References, ResultsFile, grouped
from hubmerge.study.schema import LoadedStudy
from hubmerge.support.progress import Progress


def run_study(
    loaded: LoadedStudy, out: Path, cache: Path, progress: Progress, *, memory_bytes: float | None = None
) -> list[CellResult]:
    """Merge and score what is missing in `out`/results.jsonl, then write tables and plots beside it.

    Nothing is published, whatever the recipe says. A study that is run again, or that has grown, computes only the
    cells that are not in the file: each is known by the digest of all that its result rests on.

    Raises:
        HubmergeError: a source cannot be read, or a merge or a score fails.
        MachineError: `out` cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"{out}: cannot be made: {error.strerror}", hint="name another --out") from error
    file = ResultsFile(out / RESULTS_FILE)
    with Bench.open(loaded, cache, progress, memory_bytes) as bench:
        if bench.references_digest() not in file.references:
            file.add(bench.references())
        references = file.references[bench.references_digest()]
        commits, datasets = bench.commits, bench.datasets
        wanted = list(cells(loaded.study, bench.stream.length))
        digests = [cell_digest(cell, bench.recipe, commits, datasets, loaded.study.score) for cell in wanted]
        # Short streams have fewer orders than seeds: cells of one digest are computed once.
        missing = {digest: cell for cell, digest in zip(wanted, digests, strict=True) if digest not in file.cells}
        progress.note(f"{len(wanted)} cells, {len(missing)} to do")
        for number, (digest, cell) in enumerate(missing.items(), start=1):
            order = "" if cell.seed is None else f", order {cell.seed}"
            with progress.stage(f"{number} of {len(missing)}: {cell.label}, {cell.tasks} tasks{order}"):
                result = fold_cell(bench, cell, digest, references, score=loaded.study.score, work=out / "states")
            file.add(result)
    # What a cell is called now is what counts, whatever it was called when it was computed.
    results = [file.cells[digest].of(cell) for cell, digest in zip(wanted, digests, strict=True)]
    write_outputs(results, references, out)
    return results


def write_outputs(results: Sequence[CellResult], references: References, out: Path) -> None:
    """Write tables.md, tables.tex and the plots."""
    (out / "tables.md").write_text(tables.markdown(results, references), encoding="utf-8")
    (out / "tables.tex").write_text(tables.latex(results, references), encoding="utf-8")
    pictures = {"drift.png": plots.drift(results, references)}
    if any(any(value is not None for value in row) for row in references.cosines):
        pictures["similarity.png"] = plots.similarity_map(results, references)
    if any(result.matrix["rows"] for result in results):
        if any(len(result.matrix["rows"]) > 1 for result in results):
            pictures["accuracy_per_step.png"] = plots.accuracy_per_step(results, references)
        if any(len(group) > 1 for group in grouped(results, "label", "tasks").values()):
            pictures["orders.png"] = plots.order_spread(results, references)
        for parameter in plots.swept_parameters(results):
            pictures[f"sweep_{parameter}.png"] = plots.sweep(results, references, parameter)
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
