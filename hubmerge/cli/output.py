"""Output of commands: text and bars, JSON lines, or errors alone."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hubmerge.support.progress import Advance, Progress, SilentProgress
from hubmerge.support.redaction import for_json, shown, without_tokens

if TYPE_CHECKING:
    from hubmerge.api.launched import Processes
    from hubmerge.errors import HubmergeError

OutputFormat = Literal["text", "json", "quiet"]


@dataclass
class CommandContext:
    """Settings of one call that all commands share."""

    output_format: OutputFormat = "text"
    """`text` for people, `json` for programs, `quiet` for errors alone."""
    processes: Processes | None = None
    """Processes that share the work of `run`; None without a launcher."""
    title: str | None = None
    """Name of the command, which is shown between two stages; None for a command that waits."""
    on_close: Callable[[Callable[[], None]], object] | None = None
    """Function that registers what is called when the command ends, also after an error."""

    def progress(self) -> Progress:
        """Return the receiver of notes, events and stages for the output format."""
        progress = self._progress()
        logging.getLogger("hubmerge").handlers = [_Notes(progress)]
        return progress

    def _progress(self) -> Progress:
        if self.output_format == "json":
            return JsonLines()
        if self.output_format == "quiet":
            return SilentProgress()
        from hubmerge.support.console import RichConsole

        if self.on_close is None:
            return RichConsole()
        console = RichConsole(title=self.title)
        self.on_close(console.close)
        return console


class _Notes(logging.Handler):
    """Handler that shows what hubmerge logs as notes."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        """Show one line."""
        self._progress.note(f"note: {record.getMessage()}")


class JsonLines(SilentProgress):
    """Writer of one JSON object a line to standard output: notes, stages and results, each with its `event`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def note(self, text: str) -> None:
        """Write a note."""
        self.event("note", {"text": text})

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Write an event."""
        line = for_json(json.dumps({"event": name, **data}, ensure_ascii=False)) + "\n"
        with self._lock:
            sys.stdout.write(line)
            sys.stdout.flush()

    @contextmanager
    def stage(self, title: str, total: float | None = None, unit: str = "") -> Iterator[Advance]:
        """Write the stage when it ends, with its seconds."""
        started = time.monotonic()
        yield lambda _: None
        self.event("stage", {"title": title, "seconds": round(time.monotonic() - started, 3)})


def print_error(error: HubmergeError, *, as_json: bool) -> int:
    """Print an error without secrets and return its exit status.

    Args:
        error: the error.
        as_json: print one JSON line to standard output, else message and hint to standard error.
    """
    if as_json:
        fields = {key: without_tokens(value) for key, value in error.to_dict().items()}
        print(json.dumps({"event": "error", **fields}), flush=True)
    else:
        print(f"hubmerge: {shown(error.message)}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {shown(error.hint)}", file=sys.stderr)
    return error.exit_code
