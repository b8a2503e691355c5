"""Bodies of requests, read in chunks and with limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request

from hubmerge.localhub.refusals import Stalled, TooLarge
from hubmerge.localhub.web.parsing import parse_number

BODY_LIMIT_BYTES = 4 * 1024 * 1024
STALLED_SECONDS = 60.0
"""Longest wait for the next bytes of a body."""


async def body_chunks(request: Request, limit: int) -> AsyncIterator[bytes]:
    """Yield the body of a request in chunks.

    Raises:
        TooLarge: the body is announced to have, or has, more than `limit` bytes.
        Stalled: nothing arrived for `STALLED_SECONDS`.
    """
    refusal = TooLarge(f"The body is too large: expected at most {limit} bytes.")
    if (parse_number(request.headers.get("content-length")) or 0) > limit:
        raise refusal
    size = 0
    async for chunk in arriving_chunks(request):
        size += len(chunk)
        if size > limit:
            raise refusal
        yield chunk


async def arriving_chunks(request: Request) -> AsyncIterator[bytes]:
    """Yield the body of a request in chunks, without a limit.

    Raises:
        Stalled: nothing arrived for `STALLED_SECONDS`.
    """
    stream = request.stream()
    while True:
        try:
            yield await asyncio.wait_for(anext(stream), STALLED_SECONDS)
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError as error:
            raise Stalled(f"Nothing arrived for {STALLED_SECONDS:g} seconds.") from error


async def read_body(request: Request) -> bytes:
    """Return the body of a request.

    Raises:
        TooLarge: the body is larger than `BODY_LIMIT_BYTES`.
    """
    content = bytearray()
    async for chunk in body_chunks(request, BODY_LIMIT_BYTES):
        content += chunk
    return bytes(content)
