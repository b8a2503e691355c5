"""Whole reports of the steps: in the work folder and in the target repo."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hubmerge.hub import fetch
from hubmerge.hub.publish import Target
from hubmerge.report.history import ReadHistory
from hubmerge.report.report import RunReport
from hubmerge.support.files import write_text_atomic
from hubmerge.support.hashing import file_digest
from hubmerge.support.names import history_file


def history_path(folder: Path, step: int) -> Path:
    """Return the file of a step in the folder `history` of a work folder."""
    return folder / Path(history_file(step)).name


def write_history(folder: Path, report: RunReport, steps: Iterable[int]) -> None:
    """Write the whole reports of steps, unless they are there.

    Args:
        folder: The folder `history` of a work folder.
        report: A report in which these steps are whole.
        steps: The steps.
    """
    folder.mkdir(exist_ok=True)
    for step in steps:
        if not is_written(folder, report, step):
            previous = report.steps[step - 2].digest if step > 1 else None
            write_text_atomic(history_path(folder, step), report.steps[step - 1].history_text(previous))


def is_written(folder: Path, report: RunReport, step: int) -> bool:
    """Return True if the file of a step is in a folder and has the digest in the report."""
    path = history_path(folder, step)
    return path.is_file() and f"sha256:{file_digest(path)}" == report.steps[step - 1].digest


def history_reader(report: RunReport, folder: Path | None, target: Target | None) -> ReadHistory:
    """Return a function that reads the file of a step from the work folder, else from the target repo.

    Args:
        report: The report with the digests.
        folder: The folder `history` of a work folder, None if there is none.
        target: The target repo, None if the recipe publishes nothing.
    """

    def read(step: int) -> bytes | None:
        if folder is not None and is_written(folder, report, step):
            return history_path(folder, step).read_bytes()
        if target is None or target.head is None or history_file(step) not in target.files:
            return None
        return fetch.read_checked(target.repo, target.head, history_file(step))

    return read
