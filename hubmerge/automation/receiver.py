"""HTTP server for webhooks of the Hub: checks the secret, answers at once and wakes the watcher.

The content of a message is ignored: the watcher then checks the Hub itself. A forged or repeated message costs one
check and has no other effect.
"""

from __future__ import annotations

import hmac
import socket
import threading
from collections.abc import Callable
from types import TracebackType

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hubmerge.errors import MachineError

SECRET_HEADER = "X-Webhook-Secret"  # noqa: S105 - the header's name
MAX_BODY_BYTES = 1 << 20
STOP_SECONDS = 5.0


class Receiver:
    """HTTP server in a thread; each message with the right secret calls `wake`."""

    def __init__(self, host: str, port: int, secret: str, wake: Callable[[], None]) -> None:
        self._secret = secret.encode()
        self._wake = wake
        self._socket = _bind(host, port)
        app = Starlette(routes=[Route("/", self._receive, methods=["POST"]), Route("/", _alive, methods=["GET"])])
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="off", ws="none", server_header=False
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="webhooks", daemon=True
        )

    @property
    def address(self) -> str:
        """The address of the server."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(STOP_SECONDS)
        self._socket.close()

    async def _receive(self, request: Request) -> Response:
        given = request.headers.get(SECRET_HEADER, "").encode("latin-1", errors="replace")
        if not hmac.compare_digest(given, self._secret):
            return JSONResponse({"error": "missing or wrong secret"}, status_code=401)
        received = 0
        try:
            async for part in request.stream():
                received += len(part)
                if received > MAX_BODY_BYTES:
                    return JSONResponse({"error": "message too large"}, status_code=413)
        except ClientDisconnect:
            return Response(status_code=499)
        self._wake()
        return JSONResponse({"status": "accepted"}, status_code=202)


async def _alive(_: Request) -> Response:
    return JSONResponse({"status": "waiting for webhooks"})


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=128)
    except OSError as error:
        raise MachineError(
            f"--listen {host}:{port}: {error.strerror or error}",
            hint="choose another port, or 0 for a free one",
        ) from error
