"""Uploads: the upload mode of each file, and large files."""

from __future__ import annotations

import base64
import functools
import hmac
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from hubmerge.localhub import pulls
from hubmerge.localhub.objects import is_sha256
from hubmerge.localhub.operations import check_path
from hubmerge.localhub.refusals import BadRequest, Forbidden, NotFound, TooLarge
from hubmerge.localhub.registry import LARGE_PATTERNS
from hubmerge.localhub.repository import Repository, Settings
from hubmerge.localhub.users import User
from hubmerge.localhub.web.bodies import arriving_chunks
from hubmerge.localhub.web.calls import (
    REPO,
    Call,
    require_write,
    require_write_token,
    route,
    streaming_route,
)
from hubmerge.localhub.web.parsing import is_size, object_list, parse_number

REGULAR_LIMIT_BYTES = 10 * 1000 * 1000
LARGEST_FILE_BYTES = 500 * 1000**3
MAX_OBJECTS = 1000
"""Large files in one request. The clients ask for 256 and 100."""


def find_for_commit(call: Call) -> tuple[Repository, Settings, User]:
    """Return repo, settings and caller for a commit.

    A new pull request, and a commit to an own one, needs no write access to the repo.

    Raises:
        RepositoryMissing: the repo does not exist, or the caller may not see it.
        Gated: the caller proposes a change of files that they may not read.
        LoginNeeded: the caller is anonymous.
        Forbidden: the caller may not write.
    """
    repository, settings = call.readable()
    if call.flag("create_pr") or is_own_pull_request(call, repository):
        user = require_write_token(call)
        call.readable_files()
        return repository, settings, user
    return repository, settings, require_write(call, settings.namespace, settings.id)


def is_own_pull_request(call: Call, repository: Repository) -> bool:
    """Return True if the revision of the address is an open pull request of the caller."""
    number = parse_number(call.params["revision"].removeprefix("refs/pr/"))
    if number is None or call.user is None or not call.params["revision"].startswith("refs/pr/"):
        return False
    try:
        found = pulls.find(repository, number)
    except NotFound:
        return False
    return found.takes_commits and found.author == call.user.name


def find_for_upload(call: Call) -> tuple[Repository, User]:
    """Return repo and caller for the upload of large files, perhaps for a pull request.

    Raises:
        RepositoryMissing: the repo does not exist, or the caller may not see it.
        LoginNeeded: the caller is anonymous.
        Forbidden: the token has only read access.
    """
    repository, _ = call.readable()
    return repository, require_write_token(call)


def known_files(call: Call, repository: Repository) -> Callable[[str], int | None]:
    """Return a function that returns the size of a large file by its SHA-256, if the caller may add it to a repo.

    These are the files that the caller has uploaded, and those of the repo's commits. All others count as not stored.
    """
    in_repo = functools.cache(repository.large_files)

    def size_of(sha256: str) -> int | None:
        uploaded = call.user is not None and call.site.possession.has(call.user, sha256)
        return call.site.store.lfs_size(sha256) if uploaded or sha256 in in_repo() else None

    return size_of


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
    for file in object_list(call.json(), "files"):
        path, size = check_path(file.get("path")), file.get("size")
        try:
            sample = base64.b64decode(file.get("sample") or "")
        except (TypeError, ValueError) as error:
            raise BadRequest(f"The sample of {path} is not base64: {error}.") from error
        if not isinstance(size, int) or not is_size(size):
            raise BadRequest(f"Expected the size of {path} in bytes.")
        large = is_large(path, size, sample)
        answer = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        if path in tree:
            answer["oid"] = tree[path].content_hash
        answers.append(answer)
    return {"files": answers}


def lfs_batch(call: Call) -> Any:
    """Return the upload address of each large file; none for stored files that the caller may add."""
    repository, user = find_for_upload(call)
    size_of = known_files(call, repository)
    data = call.json()
    if data.get("operation") != "upload":
        raise BadRequest("Only the operation `upload` is served here; files are downloaded from `resolve`.")
    transfers = data.get("transfers")
    multipart = isinstance(transfers, list) and "multipart" in transfers
    objects: list[dict[str, Any]] = []
    pending = call.site.multiparts.pending_bytes(user.name)
    requested = object_list(data, "objects")
    if len(requested) > MAX_OBJECTS:
        raise TooLarge(f"Too many files at once: expected at most {MAX_OBJECTS}.")
    for item in requested:
        sha256, size = str(item.get("oid")), item.get("size")
        if not is_sha256(sha256) or not isinstance(size, int) or not is_size(size):
            raise BadRequest("Expected objects with the sha256 as `oid` and the size in bytes.")
        if size > LARGEST_FILE_BYTES:
            raise TooLarge(f"A file has {size} bytes: expected at most {LARGEST_FILE_BYTES}.")
        answer: dict[str, Any] = {"oid": sha256, "size": size}
        if size_of(sha256) is None:
            call.site.store.check_room(size)
            pending += size
            call.site.usage.check(user, pending)
            answer["actions"] = {
                "upload": upload_action(call, user, sha256, size, multipart=multipart),
                "verify": {
                    "href": f"{call.endpoint}{call.request.scope['path'].removesuffix('/objects/batch')}/verify"
                },
            }
        objects.append(answer)
    return JSONResponse(
        {"transfer": "multipart" if multipart else "basic", "objects": objects},
        media_type="application/vnd.git-lfs+json",
    )


def upload_action(call: Call, user: User, sha256: str, size: int, *, multipart: bool) -> dict[str, Any]:
    """Return the upload address of a large file, or one address per part; they contain the permission to upload."""
    parts = call.site.multiparts
    if not multipart or size <= parts.part_bytes:
        signature = sign_upload(call, user.name, sha256, str(size))
        return {"href": f"{call.endpoint}/lfs/whole/{quote(user.name, safe='')}/{sha256}/{size}/{signature}"}
    key, upload = parts.begin(user.name, sha256, size)
    header = {"chunk_size": str(upload.part_bytes)}
    for number in range(1, upload.part_count + 1):
        header[str(number)] = f"{call.endpoint}/lfs/parts/{key}/{number}"
    return {"href": f"{call.endpoint}/lfs/parts/{key}", "header": header}


def sign_upload(call: Call, user: str, sha256: str, size: str) -> str:
    """Return the signature of an upload address."""
    return call.site.users.sign(f"upload {sha256} {size} {user}")


async def put_whole(call: Call) -> Response:
    """Receive a large file in one piece."""
    user, sha256, size = call.params["user"], call.params["sha256"], call.params["size"]
    signature = sign_upload(call, user, sha256, size)
    if not hmac.compare_digest(signature.encode(), call.params["signature"].encode()):
        raise Forbidden("This upload address was not made by this server.")
    call.site.store.check_room(int(size))
    call.site.usage.check(call.site.users.find(user), int(size))
    async with call.site.upload_slots.take(user):
        received = call.site.store.receive()
        try:
            async for chunk in arriving_chunks(call.request):
                received.write(chunk)
                if received.size > int(size):
                    raise BadRequest(f"More than the announced {size} bytes arrived.")
            await run_in_threadpool(call.site.store.keep, received, sha256, int(size))
        finally:
            received.discard()
    await run_in_threadpool(record_upload, call, user, sha256, int(size))
    return Response(headers={"ETag": f'"{sha256}"'})


def record_upload(call: Call, user: str, sha256: str, size: int) -> None:
    """Record that a user has uploaded a large file; it counts once in the user's quota."""
    if call.site.possession.record(user, sha256):
        call.site.usage.add(call.site.users.find(user), size)


async def put_part(call: Call) -> Response:
    """Receive one part of a large file."""
    upload = call.site.multiparts.find(call.params["key"])
    number = upload.check_number(parse_number(call.params["number"]) or 0)
    call.site.store.check_room(upload.part_size(number))
    async with call.site.upload_slots.take(upload.user):
        part = call.site.multiparts.receive(call.params["key"], number)
        try:
            async for chunk in arriving_chunks(call.request):
                part.write(chunk)
            etag = part.finish()
        finally:
            part.close()
    return Response(headers={"ETag": f'"{etag}"'})


def complete(call: Call) -> Any:
    """Put the parts of a large file together."""
    data = call.json()
    try:
        etags = {int(part["partNumber"]): str(part["etag"]).strip('"') for part in object_list(data, "parts")}
        sha256 = str(data["oid"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadRequest(f"Expected `oid` and `parts`: {error!r}.") from error
    upload = call.site.multiparts.complete(call.params["key"], sha256, etags)
    record_upload(call, upload.user, sha256, upload.size)
    return {}


def check_key(call: Call) -> None:
    """Raise the refusal of an upload in parts that was not started here."""
    call.site.multiparts.check_key(call.params["key"])


def verify(call: Call) -> Any:
    """Return an empty answer if a large file is stored that the caller may add."""
    repository, _ = call.readable()
    data = call.json()
    sha256 = str(data.get("oid"))
    size = known_files(call, repository)(sha256) if is_sha256(sha256) else None
    if size is None or size != data.get("size"):
        raise NotFound(f"No object {sha256} of {data.get('size')} bytes.")
    return {}


LFS = "/{namespace}/{name}.git/info/lfs"
ROUTES = [
    route("POST", REPO + "/preupload/{revision}", preupload, find_for_commit),
    route("POST", LFS + "/objects/batch", lfs_batch, find_for_upload),
    route("POST", LFS + "/verify", verify, Call.readable),
    route("POST", "/{plural:kind}" + LFS + "/objects/batch", lfs_batch, find_for_upload),
    route("POST", "/{plural:kind}" + LFS + "/verify", verify, Call.readable),
    streaming_route("PUT", "/lfs/whole/{user}/{sha256}/{size}/{signature}", put_whole),
    streaming_route("PUT", "/lfs/parts/{key}/{number}", put_part),
    route("POST", "/lfs/parts/{key}", complete, check_key),
]
