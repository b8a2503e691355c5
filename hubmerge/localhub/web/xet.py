"""Xet uploads over HTTP: a short-lived token from the Hub, then xorbs and shards to the storage server.

Addresses of the storage protocol that are not served (questions for known chunks, newer ways to send a shard) answer
404, on which the client takes the ways served here.
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
from hubmerge.localhub.web.calls import BODY_LIMIT_BYTES, REPO, Call, route
from hubmerge.localhub.web.upload import contributor

TOKEN_SECONDS = 3600
XORB_LIMIT_BYTES = 80 * 1024 * 1024


def write_token(call: Call) -> Any:
    """Let a caller who may commit send chunks for an hour."""
    repository, _, user = contributor(call)
    repository.resolve(call.params["revision"])
    expires = int(time.time()) + TOKEN_SECONDS
    signed = f"xet.{user.name}.{expires}"
    token = f"{signed}.{call.site.users.sign(signed)}"
    return JSONResponse(
        {"casUrl": call.endpoint, "accessToken": token, "exp": expires},
        headers={
            "X-Xet-Cas-Url": call.endpoint,
            "X-Xet-Access-Token": token,
            "X-Xet-Token-Expiration": str(expires),
        },
    )


def site_of(request: Request) -> Site:
    """Check the token of a request to the storage server.

    Raises:
        BadCredentials: it was not made by `write_token`, or is too old.
    """
    site: Site = request.app.state.site
    token = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    signed, _, signature = token.rpartition(".")
    expires = signed.rpartition(".")[2]
    genuine = hmac.compare_digest(site.users.sign(signed).encode(), signature.encode())
    if not genuine or not expires.isdigit():
        raise BadCredentials
    if int(expires) < time.time():
        raise Forbidden("The Xet token has expired.")
    return site


async def put_xorb(request: Request) -> Response:
    """Receive a xorb."""
    site = site_of(request)
    name = request.path_params["xorb"]
    if not is_sha256(name):
        raise BadRequest("The name of a xorb has 64 hex digits.")
    if await run_in_threadpool(site.xorbs.path(name).is_file):
        async for _ in request.stream():
            pass
        return JSONResponse({"was_inserted": False})
    incoming = site.xorbs.receive()
    try:
        async for chunk in request.stream():
            incoming.write(chunk)
            if incoming.size > XORB_LIMIT_BYTES:
                raise BadRequest("The xorb is too large.")
        await run_in_threadpool(site.xorbs.keep, incoming, name)
    finally:
        incoming.discard()
    return JSONResponse({"was_inserted": True})


async def put_shard(request: Request) -> Response:
    """Receive a shard and put its files together."""
    site = site_of(request)
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > BODY_LIMIT_BYTES:
            raise BadRequest("The shard is too large.")
    await run_in_threadpool(site.xorbs.keep_files, bytes(content))
    return JSONResponse({"result": 1})


ROUTES = [
    route("GET", REPO + "/xet-write-token/{revision}", write_token),
    Route("/v1/xorbs/default/{xorb}", put_xorb, methods=["POST"]),
    Route("/v1/shards", put_shard, methods=["POST"]),
]
