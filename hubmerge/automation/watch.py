"""Watcher that checks the Hub at intervals or after a webhook, and runs the recipe when something changed."""

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
from hubmerge.support import interrupts
from hubmerge.support.progress import Progress, SilentProgress
from hubmerge.support.text import counted
from merge_recipes import RecipeError

DEFAULT_SECONDS = 600.0
LONGEST_WAIT_SECONDS = 3600.0
QUIET_SECONDS = 1.0
"""Time without webhooks before a check: an upload often makes several commits."""

MAX_QUIET_WAITS = 30
"""Number of quiet times waited for at most, so that frequent webhooks cannot postpone a check forever."""

SECRET_VARIABLE = "HUBMERGE_WEBHOOK_SECRET"  # noqa: S105 - the variable's name

SHORTEST_SECRET = 16
"""Length of a secret that cannot be guessed by trying."""


@dataclass
class Watcher:
    """Watcher of one recipe.

    Attributes:
        recipe: the file, read again before each check.
        work_dir: folder for states and caches.
        progress: receives one note and one event for each check.
        handled: the changes that the last run had nothing to merge for.
        failures: number of failed checks in a row.
    """

    recipe: Path
    work_dir: Path
    progress: Progress
    handled: tuple[Change, ...] | None = None
    failures: int = 0

    def check(self) -> None:
        """Check once, run if something changed, and report the outcome in one line. Errors are reported, not raised."""
        try:
            outcome, steps = self._check_and_run()
            self.failures = 0
        except (HubmergeError, RecipeError, OSError) as error:
            self.failures += 1
            first = str(error).splitlines()[0]
            outcome, steps = f"failed ({self.failures} in a row): {first}", 0
        now = datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
        self.progress.note(f"{now} {outcome}")
        self.progress.event("check", {"at": now, "told": outcome, "steps": steps, "failures": self.failures})

    def _check_and_run(self) -> tuple[str, int]:
        # Read again each time, so that an edited recipe takes effect without a restart.
        loaded = load(self.recipe, SilentProgress())
        changes = find_changes(loaded)
        if not changes:
            return "nothing changed", 0
        if changes == self.handled:
            return f"nothing new ({counted(len(changes), 'change')} as before)", 0
        from hubmerge.run.run import Run

        with Run.open(loaded, self.work_dir, SilentProgress()) as run:
            done = [f"{step.step} ({step.name})" for step in run.steps()]
        # Something else may have changed during a run that merged steps: check again.
        self.handled = None if done else changes
        if not done:
            return f"{counted(len(changes), 'change')}: nothing to merge", 0
        return f"{counted(len(changes), 'change')}: merged step {', '.join(done)}", len(done)

    def wait_seconds(self, every: float) -> float:
        """Return the seconds until the next check: `every`, doubled after each failure up to an hour (or `every`)."""
        if not self.failures:
            return every
        wait = min(every * 2.0 ** min(self.failures, 16), max(every, LONGEST_WAIT_SECONDS))
        return wait * random.uniform(0.9, 1.1)  # noqa: S311 - jitter, not a secret


def watch(recipe: Path, work_dir: Path, every: float | None, listen: tuple[str, int] | None, progress: Progress) -> int:
    """Watch a recipe until SIGTERM or SIGINT; the first check is immediate.

    Args:
        recipe: the file of the recipe.
        work_dir: folder for states and caches.
        every: seconds between two checks. With `listen` alone, checks follow webhooks and failures only.
        listen: host and port of the server for webhooks.
        progress: receives one note and one event for each check.

    Raises:
        RecipeError: the recipe cannot be read at the start.
        MachineError: there is no secret for `listen`, or the address cannot be used.
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
            interrupts.settle()
            progress.note("stopped")
            progress.event("stopped", {})
    return 0


def _listen(stack: ExitStack, listen: tuple[str, int], wake: threading.Event, progress: Progress) -> None:
    secret = os.environ.get(SECRET_VARIABLE, "")
    hint = f"set {SECRET_VARIABLE} to the secret that the webhook has on the Hub; make one: openssl rand -hex 32"
    if not secret:
        raise MachineError("--listen needs the secret of the webhook", hint=hint)
    if len(secret) < SHORTEST_SECRET:
        message = f"{SECRET_VARIABLE} has {len(secret)} characters: expected at least {SHORTEST_SECRET}"
        raise MachineError(message, hint=hint)
    from hubmerge.automation.receiver import Receiver

    receiver = stack.enter_context(Receiver(*listen, secret, wake.set))
    progress.note(f"listening for webhooks at {receiver.address}")
    progress.event("listening", {"address": receiver.address})


def _wait(watcher: Watcher, every: float | None, wake: threading.Event) -> None:
    """Wait for the next check: until the time is over, or until a webhook came and no other one followed."""
    pause = every if every is not None else LONGEST_WAIT_SECONDS if watcher.failures else None
    woken = wake.wait(None if pause is None else watcher.wait_seconds(pause))
    for _ in range(MAX_QUIET_WAITS):
        if not woken:
            return
        wake.clear()
        woken = wake.wait(QUIET_SECONDS)
