"""Simulated network failures: limited bandwidth (`Throttle`) and requests that fail (`Faults`).

Both wrap an ASGI application. They test how a program handles a Hub that is slow, busy or broken.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from enum import Enum
from random import Random

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PIECE_BYTES = 64 * 1024
SLOW_SECONDS = (0.2, 1.5)
RETRY_AFTER_SECONDS = 1


class Throttle:
    """Bandwidth limit in each direction, shared by all connections.

    Args:
        app: the application to slow down.
        megabytes_per_second: the limit, in units of 1,000,000 bytes.
    """

    def __init__(self, app: ASGIApp, megabytes_per_second: float) -> None:
        self.app = app
        self._bytes_per_second = megabytes_per_second * 1_000_000
        self._free_at = {"up": 0.0, "down": 0.0}

    async def _spend(self, direction: str, size: int) -> None:
        now = asyncio.get_running_loop().time()
        free_at = max(self._free_at[direction], now) + size / self._bytes_per_second
        self._free_at[direction] = free_at
        await asyncio.sleep(free_at - now)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, piece by piece, at the limited bandwidth."""

        async def slow_receive() -> Message:
            message = await receive()
            await self._spend("up", len(message.get("body", b"")))
            return message

        async def slow_send(message: Message) -> None:
            body = message.get("body", b"")
            while len(body) > PIECE_BYTES:
                await self._spend("down", PIECE_BYTES)
                await send({**message, "body": body[:PIECE_BYTES], "more_body": True})
                body = body[PIECE_BYTES:]
            await self._spend("down", len(body))
            await send({**message, "body": body} if "body" in message else message)

        await self.app(scope, slow_receive, slow_send)


class Fault(Enum):
    """Failure of a request. A failure with a status is sent before the server does anything."""

    TOO_MANY = 429
    BROKEN = 500
    BUSY = 503
    EXPIRED = 401
    """The token is not accepted."""
    MOVED = 412
    """A commit is refused, as if somebody had committed before. Other requests are served."""
    DROPPED = "dropped"
    """The request is carried out, and the connection ends in the middle of the answer."""
    SLOW = "slow"
    SHORT = "short"
    """The answer to a download looks complete and lacks its second half."""


TRANSIENT = tuple(fault for fault in Fault if fault not in {Fault.EXPIRED, Fault.MOVED})
"""Faults after which a repeated request may succeed."""

_MESSAGES = {Fault.EXPIRED: "Invalid credentials in Authorization header"}


class Faults:
    """Application in which a fraction of the requests fails.

    `drawn` counts the simulated faults by kind.

    Args:
        app: the application to disturb.
        rate: the fraction of requests that fail, from 0 to 1.
        seed: the seed of the choice; a repeated sequence of requests fails in the same places.
    """

    def __init__(self, app: ASGIApp, rate: float = 0.0, seed: int = 0) -> None:
        self.app = app
        self.set(rate, seed)

    def set(self, rate: float, seed: int = 0, kinds: Sequence[Fault] = TRANSIENT) -> None:
        """Set the fraction and the kinds of the faults, from the next request on, and reset the counts."""
        self._kinds = list(kinds)
        self._random = Random(seed)  # noqa: S311 - nothing secret is drawn
        self._rate = rate
        self.drawn: Counter[Fault] = Counter()

    def draw(self) -> Fault | None:
        """Return the fault of the next request, or None if it succeeds."""
        fails, fault = self._random.random() < self._rate, self._random.choice(self._kinds)
        if not fails:
            return None
        self.drawn[fault] += 1
        return fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or make it fail."""
        fault = self.draw() if scope["type"] == "http" else None
        if fault is Fault.MOVED and "/commit/" not in scope["path"]:
            self.drawn[fault] -= 1
            fault = None
        if fault is Fault.SHORT and (scope["method"] != "GET" or b"/resolve/" not in scope["raw_path"]):
            fault = Fault.DROPPED
        if fault is None:
            await self.app(scope, receive, send)
        elif fault is Fault.SLOW:
            await asyncio.sleep(self._random.uniform(*SLOW_SECONDS))
            await self.app(scope, receive, send)
        elif fault is Fault.DROPPED:
            await self.app(scope, receive, HalfAnswer(send, honest=True))
        elif fault is Fault.SHORT:
            await self.app(scope, receive, HalfAnswer(send, honest=False))
        else:
            await self._refuse(fault, send)

    async def _refuse(self, fault: Fault, send: Send) -> None:
        message = _MESSAGES.get(fault, f"Simulated fault: {fault.name.lower().replace('_', ' ')}.")
        body = json.dumps({"error": message}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"x-error-message", message.encode()),
        ]
        if fault is Fault.TOO_MANY:
            headers.append((b"retry-after", str(RETRY_AFTER_SECONDS).encode()))
        await send({"type": "http.response.start", "status": fault.value, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class HalfAnswer:
    """A `send` that passes on half of the announced bytes.

    If `honest`, the announced length stays, the answer is never completed, and the server closes the connection.
    Otherwise half the length is announced, and the answer looks complete.
    """

    def __init__(self, send: Send, *, honest: bool) -> None:
        self._send = send
        self._honest = honest
        self._left = 0

    async def __call__(self, message: Message) -> None:
        """Pass a message on, up to half of the body."""
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            self._left = int(headers.get(b"content-length", 0)) // 2
            if not self._honest:
                headers[b"content-length"] = str(self._left).encode()
            await self._send({**message, "headers": list(headers.items())})
            return
        body = message.get("body", b"")[: self._left]
        self._left -= len(body)
        complete = not message.get("more_body", False)
        if body or (complete and not self._honest):
            await self._send({**message, "body": body, "more_body": self._honest or not complete})
