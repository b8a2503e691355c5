"""Records of the discussions and pull requests of a repo: `discussions/<number>.json` in its folder.

The files of pull request N are the ref `refs/pr/N`; its record has the title, the author and what was said.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hubmerge.localhub.durable import TemporaryFolder
from hubmerge.localhub.records import now
from hubmerge.localhub.refusals import BadRequest

OPEN, DRAFT, CLOSED, MERGED = "open", "draft", "closed", "merged"
MAX_DISCUSSIONS = 10_000
MAX_EVENTS = 1000
MAX_CHARACTERS = 500_000
LONGEST_TITLE = 1000
LONGEST_COMMENT = 65_536


@dataclass(frozen=True)
class Event:
    """Entry of a discussion: a comment, a new status, a new title. `data` has the fields of its kind."""

    id: str
    type: str
    created_at: str
    author: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Discussion:
    """Discussion or pull request.

    base: the branch that a pull request changes; None for a discussion. start: the commit that it was opened at.
    """

    number: int
    title: str
    author: str
    created_at: str
    status: str
    base: str | None = None
    start: str | None = None
    merge_commit: str | None = None
    events: tuple[Event, ...] = field(default=())

    @property
    def is_pull_request(self) -> bool:
        """True for a pull request."""
        return self.base is not None

    @property
    def takes_commits(self) -> bool:
        """True for a pull request that is neither closed nor merged."""
        return self.is_pull_request and self.status in (OPEN, DRAFT)

    def with_event(self, kind: str, author: str, data: dict[str, Any], **changes: Any) -> Discussion:
        """Return the discussion with one more event at its end, and with other changes.

        Raises:
            BadRequest: it has too many events.
        """
        said = sum(len(event.data.get("text", "")) for event in self.events)
        if len(self.events) >= MAX_EVENTS or said >= MAX_CHARACTERS:
            raise BadRequest("The discussion is full: it has too many entries or characters.")
        event = Event(secrets.token_hex(12), kind, now(), author, data)
        return replace(self, events=(*self.events, event), **changes)

    def with_comment(self, author: str, text: str) -> Discussion:
        """Return the discussion with a comment."""
        return self.with_event("comment", author, {"text": check_text("comment", text, LONGEST_COMMENT)})


def check_text(name: str, text: str, longest: int) -> str:
    """Return `text` without spaces around it.

    Raises:
        BadRequest: it is empty or too long.
    """
    text = text.strip()
    if not text or len(text) > longest:
        raise BadRequest(f"Expected a {name} of 1 to {longest} characters.")
    return text


class Discussions:
    """All discussions of one repo."""

    def __init__(self, folder: Path, temporary: TemporaryFolder) -> None:
        self._folder = folder
        self._temporary = temporary

    def numbers(self) -> set[int]:
        """Return the numbers of all records."""
        paths = self._folder.iterdir() if self._folder.is_dir() else ()
        return {int(path.stem) for path in paths if path.stem.isdigit()}

    def find(self, number: int) -> Discussion | None:
        """Return the record of a number, or None if there is none."""
        try:
            content: dict[str, Any] = json.loads((self._folder / f"{number}.json").read_bytes())
        except FileNotFoundError:
            return None
        events = tuple(Event(**event) for event in content.pop("events"))
        return Discussion(**content, events=events)

    def write(self, discussion: Discussion) -> Discussion:
        """Create or replace a record."""
        self._temporary.write_json(self._folder / f"{discussion.number}.json", asdict(discussion))
        return discussion
