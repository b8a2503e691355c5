"""A published stream that is combined with others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubmerge.errors import HubError
from hubmerge.hub import states
from hubmerge.report.inputs import CombinedPart
from hubmerge.report.report import RunReport
from hubmerge.stream.stream import Stream
from hubmerge.support.names import STATE_FOLDER, step_tag
from hubmerge.support.text import short_commit
from hubmerge.verify.metadata import check_digests
from hubmerge.verify.published import NO_STREAM, Published, open_published
from merge_recipes import Lock, LockedModel, Recipe, RecipeError, StreamEntry


@dataclass(frozen=True)
class Part:
    """A published stream with what it consists of.

    Attributes:
        published: The published step.
        stream: Its stream.
        lock: Its lock, up to the step.
    """

    published: Published
    stream: Stream
    lock: Lock

    @property
    def label(self) -> str:
        """Name in messages: the folder, or repo@commit."""
        files = self.published.files
        return files.repo if files.folder is not None else f"{files.repo}@{short_commit(files.commit)}"

    @property
    def place(self) -> dict[str, Any]:
        """The fields of errors about it."""
        files = self.published.files
        return {"file": files.repo} if files.folder is not None else {"repo": files.repo, "commit": files.commit}

    @property
    def recipe(self) -> Recipe:
        """The recipe, with exactly the entries that are merged."""
        return self.stream.recipe

    @property
    def report(self) -> RunReport:
        """The report, with every step whole."""
        return self.published.report

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.published.step

    @property
    def entries(self) -> tuple[StreamEntry, ...]:
        """The entries, one for each step."""
        return self.stream.entries

    @property
    def state_digest(self) -> str:
        """Digest of the state after the last step."""
        return self.published.state_digest(self.steps) or ""

    def merged(self) -> dict[str, LockedModel]:
        """Return the models that are merged and not taken out again, by the names of their entries."""
        found: dict[str, LockedModel] = {}
        for entry, model in zip(self.entries, self.lock.models, strict=True):
            if entry.revoke is None:
                found[entry.name] = model
            else:
                found.pop(entry.revoke, None)
        return found

    def record(self) -> CombinedPart:
        """Return what the report of the combined stream says about it."""
        files, folder = self.published.files, self.published.files.folder
        return CombinedPart(
            place=files.repo,
            commit=files.commit if folder is None else None,
            steps=self.steps,
            state_digest=self.state_digest,
            report=self.published.sealed.seal or "",
        )


def read_part(place: str | Path, revision: str | None = None) -> Part:
    """Read a published stream. Its digests are checked; nothing but small files is downloaded.

    Args:
        place: owner/name, or a folder that `hubmerge run --out DIR --state` wrote.
        revision: a tag such as step-03, a branch or a commit; None for main.

    Raises:
        HubError: There is no such stream, it was changed after it was published, or its state is not there.
    """
    published = open_published(place, revision)
    found = check_digests(published)
    stream = published.stream
    if found.verdict != "same" or stream is None:
        cause = NO_STREAM if found.verdict == "same" else found.detail
        raise HubError(f"{place}: {cause}", hint=f"run `hubmerge verify {place}`", **_place(published))
    try:
        lock = published.lock()
    except RecipeError as error:
        raise HubError(f"{place}: {error}", hint=f"run `hubmerge verify {place}`", **_place(published)) from error
    return Part(published, stream, lock.model_copy(update={"models": lock.models[: len(stream.entries)]}))


def check_state(part: Part) -> None:
    """Check that the state of a stream is published, without downloading it.

    Raises:
        HubError: It is not.
    """
    folder = part.published.files.folder
    if part.state_digest and folder is not None and (folder / STATE_FOLDER).is_dir():
        return
    if part.state_digest and folder is None and states.is_published(part.published.repo, part.state_digest):
        return
    where = "write the folder with `hubmerge run RECIPE --out DIR --state`"
    raise HubError(
        f"{part.label} has no state after {step_tag(part.steps)}",
        hint="publish with `publish: {state: last}`, and name the newest step" if folder is None else where,
        **part.place,
    )


def _place(published: Published) -> dict[str, Any]:
    files = published.files
    return {"file": files.repo} if files.folder is not None else {"repo": files.repo, "commit": files.commit}
