"""Reports as pages for people."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hubmerge.errors import HubError, UsageError
from hubmerge.support import interrupts

if TYPE_CHECKING:
    from hubmerge.inspection.entry_scores import LeaveOneOut


def write_report(
    published: str | os.PathLike[str],
    out: str | os.PathLike[str] = "report.html",
    *,
    leave_one_out: LeaveOneOut | str | os.PathLike[str] | None = None,
) -> Path:
    """Write the report of a published step, or of a study, as one HTML page with tables that sort and values on hover.

    The page needs no other file and loads nothing from the network.

    Args:
        published: the repo, with the step as revision unless it is the newest: `owner/name@step-03`; the folder of a
            step, such as `run(out=...)` wrote; or the folder of a study's results.
        out: the file to write; an earlier page is replaced.
        leave_one_out: what `hubmerge.leave_one_out` returned, or a file with the output of
            `hubmerge inspect --leave-one-out --json`, for a section on what each entry gives to the merge.

    Returns:
        The path of the file.

    Raises:
        HubError: the repo cannot be read, or its report is damaged.
        UsageError: the scores of single entries are given for a study; the folder is not that of a step or a study; or
            the file is not an earlier page, or belongs to a step.
        MachineError: the file cannot be written.

    Example:
        hubmerge.write_report("me/merged@step-03", "report.html")
    """
    from hubmerge.run.page import check_page_place
    from hubmerge.study.results import RESULTS_FILE
    from hubmerge.support.files import write_output

    check_page_place(Path(out))
    if os.path.isfile(os.path.join(published, RESULTS_FILE)):  # noqa: PTH113, PTH118 - a Path raises for long names
        text = _study_page(Path(published), has_entries=leave_one_out is not None)
    else:
        text = _step_page(os.fspath(published), leave_one_out)
    write_output(Path(out), text)
    return Path(out)


def _study_page(folder: Path, *, has_entries: bool) -> str:
    """Return the page of a study."""
    from hubmerge.study.page import page_of_results

    if has_entries:
        raise UsageError("a study has no single entries", hint="leave out --leave-one-out")
    return page_of_results(folder)


def _step_page(published: str, leave_one_out: LeaveOneOut | str | os.PathLike[str] | None) -> str:
    """Return the page of a published step."""
    from hubmerge.api.places import place_of
    from hubmerge.hub.client import endpoint
    from hubmerge.inspection.entry_scores import left_out, read_leave_one_out
    from hubmerge.report_page import PageDetails, report_page
    from hubmerge.support.names import LOCK_FILE, RECIPE_FILE
    from hubmerge.verify.published import open_published

    if isinstance(leave_one_out, (str, os.PathLike)):
        leave_one_out = read_leave_one_out(Path(leave_one_out))
    with interrupts.handled():
        found = open_published(*place_of(published))
    if found.history_problem is not None:
        raise HubError(f"{found.repo}: {found.history_problem}", hint=f"run `hubmerge verify {found.repo}`")
    details = PageDetails(
        title=f"{Path(found.repo).absolute().name}, step {found.step}",
        recipe=found.files.metadata_files[RECIPE_FILE],
        lock=found.files.metadata_files[LOCK_FILE],
        repo=found.repo if found.files.folder is None else None,
        endpoint=endpoint(),
        leave_one_out=None if leave_one_out is None else left_out(leave_one_out),
    )
    return report_page(found.report, details)
