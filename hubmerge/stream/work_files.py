"""Lock and report in the work folder. A damaged file is set aside, and the run makes it again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hubmerge.errors import HubmergeError
from hubmerge.report.report import RunReport
from hubmerge.support.damage import set_aside
from hubmerge.support.files import write_text_atomic
from hubmerge.support.workspace import Workspace
from merge_recipes import Lock

T = TypeVar("T")

_DIGEST_LINE = "# sha256 of the lines below: "


def read_work_report(workspace: Workspace) -> RunReport | None:
    """Return the report of the finished steps, None if there is no good one; a damaged one is set aside."""

    def parse(text: str) -> RunReport:
        report = RunReport.from_json(text)
        if report.has_broken_seal or report.broken_digest() is not None:
            raise ValueError("its seal does not match its content")
        return report

    return _read(workspace.report_file, parse)


def read_work_lock(workspace: Workspace) -> Lock | None:
    """Return the lock of the stream, None if there is no good one; a damaged one is set aside."""

    def parse(text: str) -> Lock:
        first, _, rest = text.partition("\n")
        if first.startswith(_DIGEST_LINE) and first.removeprefix(_DIGEST_LINE) != _digest(rest):
            raise ValueError("it does not match its digest")
        return Lock.from_yaml(text, file=str(workspace.lock_file))

    return _read(workspace.lock_file, parse)


def write_work_lock(workspace: Workspace, lock: Lock) -> None:
    """Write the lock of the stream with its digest in the first line."""
    text = lock.to_yaml()
    write_text_atomic(workspace.lock_file, f"{_DIGEST_LINE}{_digest(text)}\n{text}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _read(path: Path, parse: Callable[[str], T]) -> T | None:
    if not (path.exists() or path.is_symlink()):
        return None
    try:
        return parse(path.read_text(encoding="utf-8"))
    except HubmergeError as error:
        problem = error.message.splitlines()[0]
    except (OSError, ValueError, RecursionError) as error:
        problem = str(error)
    set_aside(path, problem)
    return None
