"""Commits: one JSON line for the header, one for each operation."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from typing import Any, TypedDict

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from hubmerge.localhub import pulls
from hubmerge.localhub.objects import ObjectStore, is_sha256
from hubmerge.localhub.operations import Delete, Operation, Put, check_path
from hubmerge.localhub.records import FileEntry
from hubmerge.localhub.refusals import BadRequest, TooLarge
from hubmerge.localhub.web.bodies import body_chunks
from hubmerge.localhub.web.calls import REPO, Call, repo_url, streaming_route
from hubmerge.localhub.web.card_check import check_committed_card
from hubmerge.localhub.web.parsing import parse_json, parse_number, read_content
from hubmerge.localhub.web.upload import find_for_commit, known_files

COMMIT_LIMIT_BYTES = 1 << 30
LINE_LIMIT_BYTES = 16 * 1024 * 1024
"""Longer than the line of a regular file of the largest size, in base64."""
MAX_OPERATIONS = 50_000
LONGEST_SUMMARY = 4096
LONGEST_DESCRIPTION = 65_536
SPOOL_BYTES = 1 << 20


def check_commit(call: Call) -> None:
    """Raise the refusal of a commit that the caller may not make, or whose revision does not exist."""
    repository, _, _ = find_for_commit(call)
    if call.flag("create_pr"):
        repository.resolve(call.params["revision"])
    else:
        repository.locate(call.params["revision"])


async def commit(call: Call) -> Response:
    """Receive a commit that the caller may make, then apply it."""
    await run_in_threadpool(check_commit, call)
    size, user = parse_number(call.request.headers.get("content-length")) or 0, call.login()
    call.site.store.check_room(size)
    call.site.usage.check(user, size)
    async with call.site.commit_slots.take(user.name):
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES, dir=str(call.site.temporary.folder)) as spool:
            lines = LineLimits()
            async for chunk in body_chunks(call.request, COMMIT_LIMIT_BYTES):
                lines.check(chunk)
                spool.write(chunk)
            size = spool.tell()
            spool.seek(0)
            answer = await run_in_threadpool(apply_commit, call, spool)
            await run_in_threadpool(call.site.usage.add, user, size)
            return JSONResponse(answer)


class LineLimits:
    """Check of the lines of a commit while they arrive."""

    def __init__(self) -> None:
        self._number = 1
        self._length = 0

    def check(self, chunk: bytes) -> None:
        """Check the lines with the next chunk.

        Raises:
            TooLarge: a line is too long, or there are too many lines.
        """
        first, *others = chunk.split(b"\n")
        self._length += len(first)
        if self._length > LINE_LIMIT_BYTES or any(len(other) > LINE_LIMIT_BYTES for other in others):
            raise TooLarge(
                f"Line {self._number} of the commit or one after it is too long: "
                f"expected at most {LINE_LIMIT_BYTES} bytes."
            )
        if others:
            self._number += len(others)
            self._length = len(others[-1])
        if self._number > 2 * MAX_OPERATIONS:
            raise TooLarge(f"The commit has too many lines: expected at most {MAX_OPERATIONS} operations.")


def apply_commit(call: Call, lines: Iterable[bytes]) -> dict[str, Any]:
    """Apply the lines of a commit, and return the answer with the new commit."""
    repository, settings, user = find_for_commit(call)
    revision = call.params["revision"]
    header, operations = read_commit(call.site.store, known_files(call, repository), lines)
    said = read_header(header)
    check_committed_card(call.site.store, settings.kind, operations)
    pull_request = None
    if call.flag("create_pr"):
        number, commit_id = pulls.propose(repository, revision, operations, author=user.name, **said)
        pull_request = f"{repo_url(call, settings)}/discussions/{number}"
    else:
        kind, name = repository.locate(revision)
        commit_id = repository.apply(kind, name, operations, author=user.name, **said)
    return {
        "success": True,
        "commitOid": commit_id,
        "commitUrl": f"{repo_url(call, settings)}/commit/{commit_id}",
        "hookOutput": "",
        **({"pullRequestUrl": pull_request} if pull_request else {}),
    }


class Header(TypedDict):
    """What the header line of a commit says."""

    title: str
    message: str
    parent: str | None


def read_header(header: dict[str, Any]) -> Header:
    """Return what the header line of a commit says.

    Raises:
        BadRequest: there is no summary, or it or the description is too long.
    """
    title, message = str(header.get("summary") or "").strip(), str(header.get("description") or "")
    if not title:
        raise BadRequest("A commit needs a summary.")
    if len(title) > LONGEST_SUMMARY or len(message) > LONGEST_DESCRIPTION:
        raise BadRequest(
            f"Expected a summary of at most {LONGEST_SUMMARY} and a description of at most "
            f"{LONGEST_DESCRIPTION} characters."
        )
    parent = header.get("parentCommit")
    return {"title": title, "message": message, "parent": None if parent is None else str(parent)}


def read_commit(
    store: ObjectStore, size_of: Callable[[str], int | None], lines: Iterable[bytes]
) -> tuple[dict[str, Any], list[Operation]]:
    """Return header and operations of a commit, and store its regular files.

    Args:
        store: the store of all files.
        size_of: returns the size of a large file that the caller may add, or None.
        lines: the lines of the commit.

    Raises:
        BadRequest: a line is invalid, or names a large file that the caller did not upload.
        TooLarge: there are too many lines.
    """
    header: dict[str, Any] | None = None
    operations: list[Operation] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if len(operations) >= MAX_OPERATIONS:
            raise TooLarge(f"The commit has too many operations: expected at most {MAX_OPERATIONS}.")
        try:
            item = parse_json(line)
            key, value = item["key"], item["value"]
            if not isinstance(value, dict):
                raise TypeError("`value` is not an object")
            if key == "header":
                header = value
            else:
                operations.append(read_operation(store, size_of, key, value))
        except (KeyError, TypeError, ValueError) as error:
            raise BadRequest(f"Line {number} of the commit is invalid: {error!r}.") from error
    if header is None:
        raise BadRequest("The commit has no header line.")
    return header, operations


def read_operation(
    store: ObjectStore, size_of: Callable[[str], int | None], key: object, value: dict[str, Any]
) -> Operation:
    """Return the operation of one line of a commit."""
    path = check_path(str(value["path"]).rstrip("/") if key == "deletedFolder" else value["path"])
    if key in ("deletedFile", "deletedFolder"):
        return Delete(path, folder=key == "deletedFolder")
    if key == "file":
        content = read_content(path, value)
        return Put(path, FileEntry(store.add_blob(content), len(content)))
    if key == "lfsFile":
        sha256 = str(value["oid"])
        size = size_of(sha256) if is_sha256(sha256) else None
        if size is None or value.get("size", size) != size:
            raise BadRequest(
                f"{path} points to a large file with sha256 {sha256} that was not uploaded. Upload it first."
            )
        return Put(path, FileEntry.large(sha256, size))
    raise BadRequest(f"Unknown operation {key!r}.")


ROUTES = [streaming_route("POST", REPO + "/commit/{revision}", commit)]
