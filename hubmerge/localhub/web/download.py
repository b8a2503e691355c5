"""Downloads: `resolve` with ranges and the headers that the clients' cache needs, and `raw`, both with HEAD."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from hubmerge.localhub.objects import COPY_BYTES, lfs_pointer
from hubmerge.localhub.records import FileEntry
from hubmerge.localhub.refusals import EntryMissing
from hubmerge.localhub.web.calls import Call, route


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first and last byte of a `Range` header, both included; None for the whole file.

    A header with several ranges or with another syntax means the whole file (RFC 9110, 14.2).

    Raises:
        ValueError: no byte of the file is in the range.
    """
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", (header or "").strip())
    if found is None or found.group(0) == "bytes=-":
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size - 1
    else:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
        if last and int(last) < int(first):
            return None
    if start > end:
        raise ValueError(header)
    return start, end


async def file_chunks(path: Path, start: int, length: int) -> AsyncIterator[bytes]:
    """Yield `length` bytes from offset `start`, in chunks."""
    file = await run_in_threadpool(path.open, "rb")
    try:
        file.seek(start)
        while length > 0:
            chunk = await run_in_threadpool(file.read, min(COPY_BYTES, length))
            if not chunk:
                return
            length -= len(chunk)
            yield chunk
    finally:
        file.close()


def content_type(path: str, entry: FileEntry) -> str:
    """Return the media type for a browser: a picture, plain text or bytes."""
    guess = mimetypes.guess_type(path)[0] or ""
    if guess.startswith("image/") and guess != "image/svg+xml":
        return guess
    return "application/octet-stream" if entry.sha256 else "text/plain; charset=utf-8"


def find_file(call: Call) -> tuple[str, str, FileEntry]:
    """Return commit, path and entry of the file of the address, for a caller who may read it.

    Raises:
        EntryMissing: there is no such file at the commit.
    """
    repository, _ = call.readable_files()
    commit_id = repository.resolve(call.params["revision"])
    path = call.params["path"]
    entry = repository.tree(commit_id).get(path)
    if entry is None:
        raise EntryMissing("Entry not found", headers={"X-Repo-Commit": commit_id})
    return commit_id, path, entry


def file_headers(call: Call, commit_id: str, path: str, content_hash: str) -> dict[str, str]:
    """Return the headers of a file that depend neither on its size nor on the requested range."""
    disposition = "attachment" if call.flag("download") else "inline"
    return {
        "X-Repo-Commit": commit_id,
        "ETag": f'"{content_hash}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": f"{disposition}; filename*=UTF-8''{quote(path.rpartition('/')[2], safe='')}",
    }


def resolve(call: Call) -> Response:
    """Send a file of a repo at a revision, or only its headers."""
    commit_id, path, entry = find_file(call)
    headers = file_headers(call, commit_id, path, entry.content_hash)
    if entry.sha256:
        headers |= {"X-Linked-ETag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
    return send(call, stored_path(call, entry), entry.size, headers, content_type(path, entry))


def raw(call: Call) -> Response:
    """Send a file as git stores it: of a large file, the pointer."""
    commit_id, path, entry = find_file(call)
    headers = file_headers(call, commit_id, path, entry.oid)
    if not entry.sha256:
        return send(call, stored_path(call, entry), entry.size, headers, content_type(path, entry))
    pointer = lfs_pointer(entry.sha256, entry.size)
    return send(call, pointer, len(pointer), headers, "text/plain; charset=utf-8")


def stored_path(call: Call, entry: FileEntry) -> Path:
    """Return the path of the stored file."""
    return call.site.store.lfs_path(entry.sha256) if entry.sha256 else call.site.store.blob_path(entry.oid)


def send(call: Call, source: Path | bytes, size: int, headers: dict[str, str], media_type: str) -> Response:
    """Send the requested range of a file, or only the headers."""
    status, start, length = 200, 0, size
    wanted = call.request.headers.get("range")
    if wanted and not size:
        # An empty file has no range. A client that asks for its first byte reads its size here.
        headers["Content-Range"] = "bytes */0"
        wanted = None
    try:
        span = byte_range(wanted, size)
    except ValueError:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
    if span is not None:
        status, start, length = 206, span[0], span[1] - span[0] + 1
        headers["Content-Range"] = f"bytes {span[0]}-{span[1]}/{size}"
    headers["Content-Length"] = str(length)
    if call.request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    if isinstance(source, bytes):
        return Response(source[start : start + length], status_code=status, headers=headers, media_type=media_type)
    return StreamingResponse(
        file_chunks(source, start, length), status_code=status, headers=headers, media_type=media_type
    )


ROUTES = [
    route("GET", f"{prefix}/{{namespace}}/{{name}}/{word}/{{revision}}/{{path:path}}", handler)
    for prefix in ("/{plural:kind}", "")
    for word, handler in (("resolve", resolve), ("raw", raw))
]
