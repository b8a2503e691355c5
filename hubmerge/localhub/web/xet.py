"""Xet uploads over HTTP: a short-lived token, then xorbs and shards.

Other addresses of the storage protocol (queries for known chunks, newer forms of a shard upload) answer 404; the client
then uses these.
"""

from __future__ import annotations

import hmac
import time
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hubmerge.localhub.objects import is_sha256
from hubmerge.localhub.refusals import BadCredentials, BadRequest, Forbidden
from hubmerge.localhub.site import Site
from hubmerge.localhub.users import User
from hubmerge.localhub.web.bodies import body_chunks
from hubmerge.localhub.web.calls import REPO, Call, route
from hubmerge.localhub.web.parsing import parse_number
from hubmerge.localhub.web.upload import find_for_commit

TOKEN_SECONDS = 3600
SHARD_LIMIT_BYTES = 64 * 1024 * 1024
XORB_LIMIT_BYTES = 80 * 1024 * 1024


def write_token(call: Call) -> Any:
    """Return a token with which a caller who may commit can send chunks for an hour."""
    repository, _, user = find_for_commit(call)
    if not call.flag("create_pr"):
        # For a new pull request, some clients send `None` as the revision.
        repository.resolve(call.params["revision"])
    expires = int(time.time()) + TOKEN_SECONDS
    signed = f"xet.{user.name}.{expires}"
    token = f"{signed}.{call.site.users.sign(signed)}"
    # A client remembers for each address which chunks it has sent. Users do not share xorbs, so each has an address.
    address = f"{call.endpoint}/xet/{call.site.users.sign(f'xet address {user.name}')[:16]}"
    return JSONResponse(
        {"casUrl": address, "accessToken": token, "exp": expires},
        headers={
            "X-Xet-Cas-Url": address,
            "X-Xet-Access-Token": token,
            "X-Xet-Token-Expiration": str(expires),
        },
    )


def authorize(request: Request) -> tuple[Site, User]:
    """Return the site and the user of a request to the storage server, after checking its token.

    Raises:
        BadCredentials: `write_token` did not make the token.
        Forbidden: the token has expired.
    """
    site: Site = request.app.state.site
    token = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    signed, _, signature = token.rpartition(".")
    name, _, text = signed.removeprefix("xet.").rpartition(".")
    genuine = hmac.compare_digest(site.users.sign(signed).encode(), signature.encode())
    user, expires = site.users.find(name), parse_number(text)
    if not genuine or user is None or expires is None:
        raise BadCredentials
    if expires < time.time():
        raise Forbidden("The Xet token has expired.")
    return site, user


async def put_xorb(request: Request) -> Response:
    """Receive a xorb."""
    site, user = authorize(request)
    name = request.path_params["xorb"]
    if not is_sha256(name):
        raise BadRequest("The name of a xorb has 64 hex digits.")
    if await run_in_threadpool(site.xorbs.find, user, name) is not None:
        return JSONResponse({"was_inserted": False})
    site.store.check_room(XORB_LIMIT_BYTES)
    site.usage.check(user, parse_number(request.headers.get("content-length")) or 0)
    async with site.upload_slots.take(user.name):
        received = site.xorbs.receive()
        try:
            async for chunk in body_chunks(request, XORB_LIMIT_BYTES):
                received.write(chunk)
            await run_in_threadpool(site.xorbs.keep, received, user, name)
        finally:
            received.discard()
    return JSONResponse({"was_inserted": True})


async def put_shard(request: Request) -> Response:
    """Receive a shard, and store its files."""
    site, user = authorize(request)
    async with site.shard_slots.take(user.name):
        content = bytearray()
        async for chunk in body_chunks(request, SHARD_LIMIT_BYTES):
            content += chunk
        await run_in_threadpool(site.xorbs.keep_files, content, user)
    return JSONResponse({"result": 1})


ROUTES = [
    route("GET", REPO + "/xet-write-token/{revision}", write_token),
    *(Route(prefix + "/v1/xorbs/default/{xorb}", put_xorb, methods=["POST"]) for prefix in ("", "/xet/{user}")),
    *(Route(prefix + "/v1/shards", put_shard, methods=["POST"]) for prefix in ("", "/xet/{user}")),
]
