"""The ASGI application of the embedded Hub."""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from hubmerge.localhub.refusals import Refusal, WrongMethod
from hubmerge.localhub.site import Site
from hubmerge.localhub.web import (
    access,
    accounts,
    collections,
    commits,
    copies,
    discussions,
    download,
    history_pages,
    listing,
    page_routes,
    pages,
    people_pages,
    repos,
    unserved,
    upload,
    xet,
)

logger = logging.getLogger(__name__)


class QuotedPaths:
    """Middleware that matches addresses as they were sent: a revision `dev%2Fx` is one part of the path, not two."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its quoted path."""
        if scope["type"] == "http":
            path = scope["raw_path"].decode("latin-1")
            scope = {**scope, "path": path}
            if "%00" in path:
                await error_answer(400, "The address has a zero byte.", None, {}, {})(scope, receive, send)
                return
        await self._app(scope, receive, send)


def error_answer(
    status: int, message: str, code: str | None, headers: dict[str, str], extra: dict[str, object]
) -> Response:
    """Return an error answer: JSON with the message, and headers for clients and for HEAD."""
    # The clients print messages to terminals.
    message = "".join(letter if letter.isprintable() else "?" for letter in " ".join(message.split()))
    line = message.encode("latin-1", errors="replace").decode("latin-1")
    headers = {**headers, "X-Error-Message": line}
    if code is not None:
        headers["X-Error-Code"] = code
    return JSONResponse({"error": message, **extra}, status_code=status, headers=headers)


async def refuse(_: Request, error: Exception) -> Response:
    """Return the answer of a `Refusal`."""
    if not isinstance(error, Refusal):
        raise error
    return error_answer(error.status, error.message, error.code, error.headers, error.extra)


async def refuse_address(request: Request, error: Exception) -> Response:
    """Return the answer for a request that no route serves."""
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code not in (404, 405):
        return error_answer(error.status_code, error.detail, None, dict(error.headers or {}), {})
    anonymous = "authorization" not in request.headers
    refusal = unserved.refusal_for(request.app.router.routes, request.scope, anonymous=anonymous)
    if page_routes.wants_page(request) and refusal.status != WrongMethod.status:
        return page_routes.refusal_page(refusal)
    return await refuse(request, refusal)


async def answer_disconnect(_: Request, _error: Exception) -> Response:
    """End a request whose caller has disconnected."""
    return Response(status_code=499)


async def answer_internal_error(request: Request, error: Exception) -> Response:
    """Log an unexpected exception, and return status 500; for a full disk, status 507."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return error_answer(507, "The disk of this Hub is full.", None, {}, {})
    logger.error("%s %s", request.method, request.scope["path"], exc_info=error)
    return error_answer(500, f"Internal error: {type(error).__name__}", None, {}, {})


def build_app(site: Site) -> ASGIApp:
    """Return the application that serves `site`."""
    routes: Sequence[BaseRoute] = [
        *unserved.ROUTES,
        *listing.ROUTES,
        *collections.ROUTES,
        *access.ROUTES,
        *discussions.ROUTES,
        *accounts.ROUTES,
        *repos.ROUTES,
        *upload.ROUTES,
        *commits.ROUTES,
        *copies.ROUTES,
        *download.ROUTES,
        *xet.ROUTES,
        *pages.ROUTES,
        *history_pages.ROUTES,
        *people_pages.ROUTES,
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            Refusal: refuse,
            HTTPException: refuse_address,
            ClientDisconnect: answer_disconnect,
            Exception: answer_internal_error,
        },
    )
    app.state.site = site
    app.router.redirect_slashes = False
    return QuotedPaths(app)
