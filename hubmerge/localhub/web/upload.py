"""Uploads: the upload mode of each file, large files, and commits."""

from __future__ import annotations

import base64
import binascii
import json
import tempfile
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from hubmerge.localhub.objects import ObjectStore, is_sha256
from hubmerge.localhub.operations import Delete, Operation, Put, check_path
from hubmerge.localhub.records import FileEntry
from hubmerge.localhub.refusals import BadRequest, Forbidden, NotFound
from hubmerge.localhub.registry import LARGE_PATTERNS
from hubmerge.localhub.repository import Repository, Settings
from hubmerge.localhub.users import User
from hubmerge.localhub.web.calls import REPO, Call, repo_url, require_write, route, streaming_route

REGULAR_LIMIT_BYTES = 10 * 1000 * 1000
SPOOL_BYTES = 1 << 20


def find_for_commit(call: Call) -> tuple[Repository, Settings, User]:
    """Return repo, settings and caller for a commit. A pull request needs no write access to the repo.

    Raises:
        RepositoryMissing: the repo does not exist, or the caller may not see it.
        LoginNeeded: the caller is anonymous.
        Forbidden: the caller may not write.
    """
    repository, settings = call.readable()
    if call.flag("create_pr"):
        user = call.login()
        if user.role == "read":
            raise Forbidden("This token has only read access. A token with write access is needed.")
        return repository, settings, user
    return repository, settings, require_write(call, settings.namespace)


def is_large(path: str, size: int, sample: bytes) -> bool:
    """Return True if a file is stored as a large file: because of its name, its size or its binary content."""
    name = path.rpartition("/")[2]
    return (
        size > REGULAR_LIMIT_BYTES or any(fnmatchcase(name, pattern) for pattern in LARGE_PATTERNS) or b"\0" in sample
    )


def preupload(call: Call) -> Any:
    """Return the upload mode of each file, and the hash of the file that it replaces."""
    repository, _, _ = find_for_commit(call)
    tree = repository.tree(repository.resolve(call.params["revision"]))
    answers = []
    for file in call.json().get("files", []):
        try:
            path, size = check_path(file["path"]), int(file["size"])
            sample = base64.b64decode(file.get("sample") or "")
        except (KeyError, TypeError, ValueError) as error:
            raise BadRequest(f"Expected files with path, size and sample: {error!r}.") from error
        large = is_large(path, size, sample)
        answer = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        if path in tree:
            answer["oid"] = tree[path].content_hash
        answers.append(answer)
    return {"files": answers}


def lfs_batch(call: Call) -> Any:
    """Return the upload address of each large file; none for files that are stored already."""
    repository, _ = call.readable()
    del repository
    if call.login().role == "read":
        raise Forbidden("This token has only read access. A token with write access is needed.")
    data = call.json()
    if data.get("operation") != "upload":
        raise BadRequest("Only the operation `upload` is served here; files are downloaded from `resolve`.")
    multipart = "multipart" in (data.get("transfers") or [])
    objects = []
    for item in data.get("objects", []):
        sha256, size = str(item.get("oid")), item.get("size")
        if not is_sha256(sha256) or not isinstance(size, int) or size < 0:
            raise BadRequest("Expected objects with the sha256 as `oid` and the size in bytes.")
        answer: dict[str, Any] = {"oid": sha256, "size": size}
        if call.site.store.lfs_size(sha256) is None:
            answer["actions"] = {
                "upload": upload_action(call, sha256, size, multipart=multipart),
                "verify": {
                    "href": f"{call.endpoint}{call.request.scope['path'].removesuffix('/objects/batch')}/verify"
                },
            }
        objects.append(answer)
    return JSONResponse(
        {"transfer": "multipart" if multipart else "basic", "objects": objects},
        media_type="application/vnd.git-lfs+json",
    )


def upload_action(call: Call, sha256: str, size: int, *, multipart: bool) -> dict[str, Any]:
    """Return the upload address of a large file, or one address per part; they contain the permission to upload."""
    parts = call.site.multiparts
    if not multipart or size <= parts.part_bytes:
        signature = call.site.users.sign(f"{sha256} {size}")
        return {"href": f"{call.endpoint}/lfs/whole/{sha256}/{size}/{signature}"}
    key, upload = parts.begin(sha256, size)
    header = {"chunk_size": str(upload.part_bytes)}
    for number in range(1, upload.part_count + 1):
        header[str(number)] = f"{call.endpoint}/lfs/parts/{key}/{number}"
    return {"href": f"{call.endpoint}/lfs/parts/{key}", "header": header}


async def put_whole(call: Call) -> Response:
    """Receive a large file in one piece."""
    sha256, size, signature = call.params["sha256"], call.params["size"], call.params["signature"]
    if not size.isdigit() or call.site.users.sign(f"{sha256} {size}") != signature:
        raise Forbidden("This upload address was not made by this server.")
    received = call.site.store.receive()
    try:
        async for chunk in call.request.stream():
            received.write(chunk)
            if received.size > int(size):
                raise BadRequest(f"More than the announced {size} bytes arrived.")
        await run_in_threadpool(call.site.store.keep, received, sha256, int(size))
    finally:
        received.discard()
    return Response(headers={"ETag": f'"{sha256}"'})


async def put_part(call: Call) -> Response:
    """Receive one part of a large file."""
    number = call.params["number"]
    part = call.site.multiparts.receive(call.params["key"], int(number) if number.isdigit() else 0)
    try:
        async for chunk in call.request.stream():
            part.write(chunk)
        etag = part.finish()
    finally:
        part.close()
    return Response(headers={"ETag": f'"{etag}"'})


def complete(call: Call) -> Any:
    """Put the parts of a large file together."""
    data = call.json()
    try:
        etags = {int(part["partNumber"]): str(part["etag"]).strip('"') for part in data["parts"]}
        sha256 = str(data["oid"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadRequest(f"Expected `oid` and `parts`: {error!r}.") from error
    call.site.multiparts.complete(call.params["key"], sha256, etags)
    return {}


def verify(call: Call) -> Any:
    """Return an empty answer if a large file is stored."""
    call.readable()
    data = call.json()
    sha256 = str(data.get("oid"))
    if not is_sha256(sha256) or call.site.store.lfs_size(sha256) != data.get("size"):
        raise NotFound(f"No object {sha256} of {data.get('size')} bytes.")
    return {}


async def commit(call: Call) -> Response:
    """Receive a commit, line by line, then apply it."""
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES, dir=str(call.site.temporary.folder)) as spool:
        async for chunk in call.request.stream():
            spool.write(chunk)
        spool.seek(0)
        return JSONResponse(await run_in_threadpool(apply_commit, call, spool))


def apply_commit(call: Call, lines: Iterable[bytes]) -> dict[str, Any]:
    """Apply the lines of a commit, and return the answer with the new commit."""
    repository, settings, user = find_for_commit(call)
    revision = call.params["revision"]
    as_pull_request = call.flag("create_pr")
    if as_pull_request:
        repository.resolve(revision)
    else:
        kind, name = repository.locate(revision)
    header, operations = read_commit(call.site.store, lines)
    title = str(header.get("summary") or "").strip()
    if not title:
        raise BadRequest("A commit needs a summary.")
    pull_request = None
    if as_pull_request:
        kind, name = repository.open_pull_request(revision)
        pull_request = f"{repo_url(call, settings)}/discussions/{name}"
    commit_id = repository.apply(
        kind,
        name,
        operations,
        title=title,
        message=str(header.get("description") or ""),
        author=user.name,
        parent=header.get("parentCommit"),
    )
    return {
        "success": True,
        "commitOid": commit_id,
        "commitUrl": f"{repo_url(call, settings)}/commit/{commit_id}",
        "hookOutput": "",
        **({"pullRequestUrl": pull_request} if pull_request else {}),
    }


def read_commit(store: ObjectStore, lines: Iterable[bytes]) -> tuple[dict[str, Any], list[Operation]]:
    """Return header and operations of a commit, and store its regular files.

    Raises:
        BadRequest: a line is invalid, or names a large file that was not uploaded.
    """
    header: dict[str, Any] | None = None
    operations: list[Operation] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                header = dict(value)
            else:
                operations.append(read_operation(store, key, value))
        except (KeyError, TypeError, ValueError) as error:
            raise BadRequest(f"Line {number} of the commit is invalid: {error!r}.") from error
    if header is None:
        raise BadRequest("The commit has no header line.")
    return header, operations


def read_operation(store: ObjectStore, key: str, value: dict[str, Any]) -> Operation:
    """Return the operation of one line of a commit."""
    path = check_path(str(value["path"]).rstrip("/") if key == "deletedFolder" else value["path"])
    if key in ("deletedFile", "deletedFolder"):
        return Delete(path, folder=key == "deletedFolder")
    if key == "file":
        try:
            content = (
                base64.b64decode(value["content"], validate=True)
                if value.get("encoding") == "base64"
                else str(value["content"]).encode()
            )
        except binascii.Error as error:
            raise BadRequest(f"The content of {path} is not base64: {error}.") from error
        return Put(path, FileEntry(store.add_blob(content), len(content)))
    if key == "lfsFile":
        sha256 = str(value["oid"])
        size = store.lfs_size(sha256) if is_sha256(sha256) else None
        if size is None or value.get("size", size) != size:
            raise BadRequest(
                f"{path} points to a large file with sha256 {sha256} that was not uploaded. Upload it first."
            )
        return Put(path, FileEntry.large(sha256, size))
    raise BadRequest(f"Unknown operation {key!r}.")


LFS = "/{namespace}/{name}.git/info/lfs"
ROUTES = [
    route("POST", REPO + "/preupload/{revision}", preupload),
    streaming_route("POST", REPO + "/commit/{revision}", commit),
    route("POST", LFS + "/objects/batch", lfs_batch),
    route("POST", LFS + "/verify", verify),
    route("POST", "/{plural}" + LFS + "/objects/batch", lfs_batch),
    route("POST", "/{plural}" + LFS + "/verify", verify),
    streaming_route("PUT", "/lfs/whole/{sha256}/{size}/{signature}", put_whole),
    streaming_route("PUT", "/lfs/parts/{key}/{number}", put_part),
    route("POST", "/lfs/parts/{key}", complete),
]
