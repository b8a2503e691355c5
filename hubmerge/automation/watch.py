"""Look at the Hub again and again, or when it calls, and run the recipe whenever something moved."""

from __future__ import annotations

import os
import random
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from hubmerge.automation.outdated import Change, find_changes
from hubmerge.errors import HubmergeError, MachineError
from hubmerge.stream.load import load
from hubmerge.support.progress import Progress, SilentProgress
from merge_recipes import RecipeError

DEFAULT_SECONDS = 600.0
LONGEST_WAIT_SECONDS = 3600.0
QUIET_SECONDS = 1.0
"""How long it must be quiet after a webhook before the Hub is looked at: uploads often come in several commits."""

LONGEST_UNQUIET = 30
SECRET_VARIABLE = "HUBMERGE_WEBHOOK_SECRET"  # noqa: S105 - the variable's name


@dataclass
class Watcher:
    """One recipe under watch. `handled` is the news that a run could make nothing of."""

    recipe: Path
    work_dir: Path
    progress: Progress
    handled: tuple[Change, ...] | None = None
    failures: int = 0

    def check(self) -> None:
        """Look once, run if something moved, and tell the outcome in one line. Errors are told, not raised."""
        try:
            told, steps = self._look()
            self.failures = 0
        except (HubmergeError, RecipeError, OSError) as error:
            self.failures += 1
            first = str(error).splitlines()[0]
            told, steps = f"failed ({self.failures} in a row): {first}", 0
        now = datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
        self.progress.note(f"{now} {told}")
        self.progress.event("check", {"at": now, "told": told, "steps": steps, "failures": self.failures})

    def _look(self) -> tuple[str, int]:
        # The recipe is read anew each time: whoever edits it need not start the watcher again.
        loaded = load(self.recipe, SilentProgress())
        changes = find_changes(loaded)
        if not changes:
            return "nothing moved", 0
        if changes == self.handled:
            return f"nothing new ({_counted(changes)} as before)", 0
        from hubmerge.run.run import Run

        with Run.open(loaded, self.work_dir, SilentProgress()) as run:
            done = [f"{step.step} ({step.name})" for step in run.steps()]
        # Where a run had something to do, more may have moved meanwhile: the next look tells.
        self.handled = None if done else changes
        if not done:
            return f"{_counted(changes)}: nothing to merge", 0
        return f"{_counted(changes)}: merged step {', '.join(done)}", len(done)

    def wait_seconds(self, every: float) -> float:
        """How long to wait until the next look: `every`, and after failures longer, at most an hour or `every`."""
        if not self.failures:
            return every
        wait = min(every * 2.0 ** min(self.failures, 16), max(every, LONGEST_WAIT_SECONDS))
        return wait * random.uniform(0.9, 1.1)  # noqa: S311 - jitter, not a secret


def watch(recipe: Path, work_dir: Path, every: float | None, listen: tuple[str, int] | None, progress: Progress) -> int:
    """Watch a recipe until SIGTERM or SIGINT; the first look is taken at once.

    Without `every` but with `listen`, the Hub is looked at only when it calls, and after a failure.

    Raises:
        RecipeError: the recipe cannot be read at the start.
        MachineError: `listen` without a secret, or an address that cannot be used.
    """
    load(recipe, progress)
    watcher = Watcher(recipe, work_dir, progress)
    wake = threading.Event()
    every = DEFAULT_SECONDS if every is None and listen is None else every
    with ExitStack() as stack:
        try:
            if listen is not None:
                _listen(stack, listen, wake, progress)
            while True:
                watcher.check()
                _wait(watcher, every, wake)
        except KeyboardInterrupt:
            progress.note("stopped")
            progress.event("stopped", {})
    return 0


def _listen(stack: ExitStack, listen: tuple[str, int], wake: threading.Event, progress: Progress) -> None:
    secret = os.environ.get(SECRET_VARIABLE, "")
    if not secret:
        raise MachineError(
            "--listen needs the secret that the webhook was made with", hint=f"set {SECRET_VARIABLE} to it"
        )
    from hubmerge.automation.receiver import Receiver

    receiver = stack.enter_context(Receiver(*listen, secret, wake.set))
    progress.note(f"waiting for webhooks at {receiver.address}")
    progress.event("listening", {"address": receiver.address})


def _wait(watcher: Watcher, every: float | None, wake: threading.Event) -> None:
    """Wait until it is time to look again, or until the Hub called and has been quiet for a moment."""
    pause = every if every is not None else LONGEST_WAIT_SECONDS if watcher.failures else None
    called = wake.wait(None if pause is None else watcher.wait_seconds(pause))
    for _ in range(LONGEST_UNQUIET):
        if not called:
            return
        wake.clear()
        called = wake.wait(QUIET_SECONDS)


def _counted(changes: tuple[Change, ...]) -> str:
    return f"{len(changes)} thing{'s' if len(changes) > 1 else ''} moved"
