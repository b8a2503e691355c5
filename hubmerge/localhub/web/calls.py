"""A request as the handlers see it: who calls, which repo is meant, and what they may do with it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hubmerge.localhub.refusals import BadRequest, Forbidden, Gated, LoginNeeded, RepositoryMissing
from hubmerge.localhub.repository import KINDS, Repository, Settings
from hubmerge.localhub.site import Site
from hubmerge.localhub.users import User

BODY_LIMIT_BYTES = 64 * 1024 * 1024
REPO = "/api/{plural}/{namespace}/{name}"
PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}


@dataclass(frozen=True)
class Call:
    """One request. `params` are the parts of the address, unquoted one by one."""

    site: Site
    request: Request
    params: dict[str, str]
    user: User | None
    body: bytes = b""

    @property
    def endpoint(self) -> str:
        """The address of this Hub as the caller wrote it, without a trailing slash."""
        return str(self.request.base_url).rstrip("/")

    def json(self) -> dict[str, Any]:
        """Read the body as a JSON object.

        Raises:
            BadRequest: it is not one.
        """
        try:
            value = json.loads(self.body or b"{}")
        except ValueError as error:
            raise BadRequest(f"The body is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise BadRequest("The body is not a JSON object.")
        return value

    def flag(self, name: str) -> bool:
        """Read a yes or no of the query."""
        return self.request.query_params.get(name, "").lower() in ("1", "true")

    def login(self) -> User:
        """Ask for a known caller.

        Raises:
            LoginNeeded: there is none.
        """
        if self.user is None:
            raise LoginNeeded("Invalid username or password.")
        return self.user

    @property
    def kind(self) -> str:
        """The kind of the repo in the address: model, dataset or space."""
        return KINDS.get(self.params.get("plural", "models"), "unknown")

    @property
    def repo_id(self) -> str:
        """The id of the repo in the address."""
        return f"{self.params['namespace']}/{self.params['name']}"

    def readable(self) -> tuple[Repository, Settings]:
        """Find the repo of the address, if the caller may know of it.

        Raises:
            RepositoryMissing: it is missing or not theirs.
        """
        return readable(self.site, self.user, self.kind, self.repo_id)

    def readable_files(self) -> tuple[Repository, Settings]:
        """Find the repo of the address, if the caller may read its files.

        Raises:
            Gated: their access request was not accepted.
        """
        repository, settings = self.readable()
        if settings.gated and not may_read_gated(self.user, settings):
            raise Gated(settings.id, anonymous=self.user is None)
        return repository, settings

    def writable(self) -> tuple[Repository, Settings, User]:
        """Find the repo of the address, if the caller may change it.

        Raises:
            Forbidden: they may read it only.
        """
        repository, settings = self.readable()
        return repository, settings, require_write(self, settings.namespace)


def readable(site: Site, user: User | None, kind: str, repo_id: str) -> tuple[Repository, Settings]:
    """Find a repo, if `user` may know of it.

    Raises:
        RepositoryMissing: it is missing or not theirs.
    """
    repository = site.registry.find(kind, repo_id) if kind in PREFIXES else None
    if repository is None:
        raise RepositoryMissing(anonymous=user is None)
    settings = repository.settings()
    if not may_see(user, settings):
        raise RepositoryMissing(anonymous=user is None)
    return repository, settings


def may_see(user: User | None, settings: Settings) -> bool:
    """Return True if `user` may know that the repo exists."""
    return not settings.private or (user is not None and user.owns(settings.namespace))


def may_read_gated(user: User | None, settings: Settings) -> bool:
    """Return True if `user` passes the gate."""
    if user is None:
        return False
    return user.owns(settings.namespace) or settings.access.get(user.name, {}).get("status") == "accepted"


def require_write(call: Call, namespace: str) -> User:
    """Ask for a caller who may write to `namespace`.

    Raises:
        LoginNeeded: the caller is anonymous.
        Forbidden: the caller may not write there.
    """
    user = call.login()
    if not user.may_write(namespace):
        if user.role == "read":
            raise Forbidden("This token has only read access. A token with write access is needed.")
        raise Forbidden(f"You don't have the rights to write to the namespace {namespace!r}.")
    return user


def repo_url(call: Call, settings: Settings) -> str:
    """Return the address of a repo's page."""
    return f"{call.endpoint}/{PREFIXES[settings.kind]}{settings.id}"


async def open_call(request: Request, *, body: bool) -> Call:
    """Find out who calls and what they ask for.

    Raises:
        BadCredentials: their token belongs to nobody.
    """
    site: Site = request.app.state.site
    user = site.users.authenticate(request.headers.get("authorization"))
    params = {name: unquote(value) for name, value in request.path_params.items()}
    content = bytearray()
    if body:
        async for chunk in request.stream():
            content += chunk
            if len(content) > BODY_LIMIT_BYTES:
                raise BadRequest("The body is too large.")
    return Call(site, request, params, user, bytes(content))


def route(methods: str, path: str, handler: Callable[[Call], Any]) -> Route:
    """Serve `path` by a plain function, in a thread of its own; what it returns is sent as JSON."""

    async def endpoint(request: Request) -> Response:
        call = await open_call(request, body=True)
        answer = await run_in_threadpool(handler, call)
        return answer if isinstance(answer, Response) else JSONResponse(answer)

    return Route(path, endpoint, methods=methods.split())


def streaming_route(methods: str, path: str, handler: Callable[[Call], Awaitable[Response]]) -> Route:
    """Serve `path` by a coroutine that reads the body itself, chunk by chunk."""

    async def endpoint(request: Request) -> Response:
        return await handler(await open_call(request, body=False))

    return Route(path, endpoint, methods=methods.split())
