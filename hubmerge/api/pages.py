"""Reports as pages for people."""

from __future__ import annotations

import os
from pathlib import Path

from hubmerge.errors import HubError
from hubmerge.support import interrupts


def write_report(published: str | os.PathLike[str], out: str | os.PathLike[str] = "report.html") -> Path:
    """Write the report of a published step as one HTML page, with tables that sort and values on hover.

    The page needs no other file and loads nothing from the network.

    Args:
        published: the repo, with the step as revision unless it is the newest: `owner/name@step-03`; or the folder of
            a step, such as `run(out=...)` wrote.
        out: the file to write; an earlier page is replaced.

    Returns:
        The path of the file.

    Raises:
        HubError: the repo cannot be read, or its report is damaged.
        MachineError: the folder is not that of a step, or the file cannot be written.

    Example:
        hubmerge.write_report("me/merged@step-03", "report.html")
    """
    from hubmerge.api.places import place_of
    from hubmerge.hub.client import endpoint
    from hubmerge.report_page import PageDetails, report_page
    from hubmerge.support.files import write_output
    from hubmerge.support.names import LOCK_FILE, RECIPE_FILE
    from hubmerge.verify.published import open_published

    with interrupts.handled():
        found = open_published(*place_of(os.fspath(published)))
    if found.history_problem is not None:
        raise HubError(f"{found.repo}: {found.history_problem}", hint=f"run `hubmerge verify {found.repo}`")
    details = PageDetails(
        title=f"{Path(found.repo).absolute().name}, step {found.step}",
        recipe=found.files.metadata_files[RECIPE_FILE],
        lock=found.files.metadata_files[LOCK_FILE],
        repo=found.repo if found.files.folder is None else None,
        endpoint=endpoint(),
    )
    write_output(Path(out), report_page(found.report, details))
    return Path(out)
