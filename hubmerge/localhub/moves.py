"""Former ids of repos: `moves/<models|datasets|spaces>/<namespace>/<name>` has the id that the repo was moved to.

A repo can be moved several times, so an entry can lead to another one. A repo under the old id comes before its entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from hubmerge.localhub.durable import TemporaryFolder
from hubmerge.localhub.refusals import BadRequest

MOST_MOVES = 10_000
"""Former ids of one kind of repo."""


class Moves:
    """Former ids of all repos of a Hub folder. Hold the lock of the names for every change."""

    def __init__(self, root: Path, temporary: TemporaryFolder) -> None:
        self._folder = root / "moves"
        self._temporary = temporary

    def _path(self, plural: str, repo_id: str) -> Path:
        return self._folder / plural / repo_id

    def _next(self, plural: str, repo_id: str) -> str | None:
        try:
            return self._path(plural, repo_id).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None

    def _former(self, plural: str, repo_id: str) -> Iterator[str]:
        """Yield the ids whose entry has `repo_id`."""
        for path in (self._folder / plural).glob("*/*"):
            former = f"{path.parent.name}/{path.name}"
            if self._next(plural, former) == repo_id:
                yield former

    def find(self, plural: str, repo_id: str, exists: Callable[[str], bool]) -> str | None:
        """Return the id that a former id leads to, or None if there is no entry for it."""
        seen = {repo_id}
        found = self._next(plural, repo_id)
        while found is not None and found not in seen and not exists(found):
            seen.add(found)
            found = self._next(plural, found)
        return found if found not in seen else None

    def record(self, plural: str, repo_id: str, new_id: str) -> None:
        """Record that a repo is moved.

        Raises:
            BadRequest: there are too many former ids.
        """
        if self._next(plural, repo_id) is None and len(list((self._folder / plural).glob("*/*"))) >= MOST_MOVES:
            raise BadRequest(f"This Hub has {MOST_MOVES} former names of {plural} and takes no more.")
        self._temporary.write(self._path(plural, repo_id), new_id.encode())

    def reuse(self, plural: str, repo_id: str) -> None:
        """Make room for a repo of the id: former ids that lead through it lead past it, and its entry is removed."""
        following = self._next(plural, repo_id)
        if following is None:
            return
        for former in list(self._former(plural, repo_id)):
            self.record(plural, former, following)
        self._path(plural, repo_id).unlink()

    def forget(self, plural: str, repo_id: str) -> None:
        """Remove the entries that lead to a repo, which is deleted."""
        waiting = [repo_id]
        while waiting:
            for former in list(self._former(plural, waiting.pop())):
                self._path(plural, former).unlink()
                waiting.append(former)
