"""Requests as the handlers get them: caller, address, and the caller's permissions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hubmerge.localhub.refusals import (
    BadRequest,
    Forbidden,
    Gated,
    LoginNeeded,
    Moved,
    RepositoryMissing,
)
from hubmerge.localhub.repository import KINDS, Repository, Settings
from hubmerge.localhub.site import Site
from hubmerge.localhub.users import User
from hubmerge.localhub.web.bodies import read_body
from hubmerge.localhub.web.parsing import parse_json

MAX_QUERY_FIELDS = 1000
REPO = "/api/{plural:kind}/{namespace}/{name}"
PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}


class KindConvertor(Convertor[str]):
    """Part of an address that is the plural of a kind of repo."""

    regex = "|".join(KINDS)

    def convert(self, value: str) -> str:
        """Return the part of the address."""
        return value

    def to_string(self, value: str) -> str:
        """Return the part of the address."""
        return value


register_url_convertor("kind", KindConvertor())


@dataclass(frozen=True)
class Call:
    """Request with its caller. `params` are the parts of the address, each unquoted."""

    site: Site
    request: Request
    params: dict[str, str]
    user: User | None
    body: bytes = b""

    @property
    def endpoint(self) -> str:
        """The address of this Hub as in the request, without a trailing slash."""
        return str(self.request.base_url).rstrip("/")

    def json(self) -> dict[str, Any]:
        """Read the body as a JSON object.

        Raises:
            BadRequest: the body is not a JSON object.
        """
        value = parse_json(self.body or b"{}")
        if not isinstance(value, dict):
            raise BadRequest("The body is not a JSON object.")
        return value

    def flag(self, name: str) -> bool:
        """Return True if the query sets a flag."""
        return self.request.query_params.get(name, "").lower() in ("1", "true")

    def login(self) -> User:
        """Return the caller.

        Raises:
            LoginNeeded: the caller is anonymous.
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
        """Return the repo of the address.

        Raises:
            Moved: the repo has another name now.
            RepositoryMissing: it does not exist, or the caller may not see it.
        """
        try:
            return readable(self.site, self.user, self.kind, self.repo_id)
        except RepositoryMissing:
            self._redirect()
            raise

    def _redirect(self) -> None:
        """Raise Moved if the repo of the address has another name now, and the caller may see it."""
        new_id = self.site.registry.new_id(self.kind, self.repo_id) if self.kind in PREFIXES else None
        if new_id is None:
            return
        _, settings = readable(self.site, self.user, self.kind, new_id)
        old = "/{namespace}/{name}".format_map(self.request.path_params)
        address = self.request.scope["path"].replace(old, f"/{settings.id}", 1)
        query = self.request.url.query
        raise Moved(f"{address}?{query}" if query else address)

    def readable_files(self) -> tuple[Repository, Settings]:
        """Return the repo of the address for a caller who may read its files.

        Raises:
            RepositoryMissing: it does not exist, or the caller may not see it.
            Gated: the caller has no accepted access request.
        """
        repository, settings = self.readable()
        if settings.gated and not may_read_gated(self.user, settings):
            raise Gated(settings.id, anonymous=self.user is None)
        return repository, settings

    def writable(self) -> tuple[Repository, Settings, User]:
        """Return the repo of the address for a caller who may change it.

        Raises:
            RepositoryMissing: it does not exist, or the caller may not see it.
            LoginNeeded: the caller is anonymous.
            Forbidden: the caller may not write to it.
        """
        repository, settings = self.readable()
        return repository, settings, require_write(self, settings.namespace, settings.id)


def readable(site: Site, user: User | None, kind: str, repo_id: str) -> tuple[Repository, Settings]:
    """Return a repo that `user` may see.

    Raises:
        RepositoryMissing: it does not exist, or `user` may not see it.
    """
    repository = site.registry.find(kind, repo_id) if kind in PREFIXES else None
    if repository is None:
        raise RepositoryMissing(anonymous=user is None)
    settings = repository.settings()
    if not may_see(user, settings):
        raise RepositoryMissing(anonymous=user is None)
    return repository, settings


def may_see(user: User | None, settings: Settings) -> bool:
    """Return True if `user` may see that the repo exists."""
    return not settings.private or (user is not None and user.owns(settings.namespace, settings.id))


def may_read_gated(user: User | None, settings: Settings) -> bool:
    """Return True if `user` may read the files of a gated repo."""
    if user is None:
        return False
    return user.owns(settings.namespace, settings.id) or settings.access.get(user.name, {}).get("status") == "accepted"


def require_write(call: Call, namespace: str, repo_id: str | None = None) -> User:
    """Return the caller if they may write to `namespace`, or to the existing repo `repo_id` there.

    Raises:
        LoginNeeded: the caller is anonymous.
        Forbidden: the caller may not write there.
    """
    user = require_write_token(call)
    if not user.may_write(namespace, repo_id):
        raise Forbidden(f"You don't have the rights to write to the namespace {namespace!r}.")
    return user


def require_write_token(call: Call) -> User:
    """Return the caller if their token allows changes somewhere.

    Raises:
        LoginNeeded: the caller is anonymous.
        Forbidden: the token has only read access.
    """
    user = call.login()
    if not user.changes_something:
        raise Forbidden("This token has only read access. A token with write access is needed.")
    return user


def repo_url(call: Call, settings: Settings) -> str:
    """Return the address of a repo's page."""
    return f"{call.endpoint}/{PREFIXES[settings.kind]}{settings.id}"


def open_call(request: Request) -> Call:
    """Return the call of a request, without its body.

    Raises:
        BadCredentials: the token belongs to no user.
        BadRequest: a part of the address is not UTF-8, or the query has too many fields.
    """
    site: Site = request.app.state.site
    user = site.users.authenticate(request.headers.get("authorization"))
    try:
        params = {name: unquote(value, errors="strict") for name, value in request.path_params.items()}
    except UnicodeDecodeError as error:
        raise BadRequest("The address is not UTF-8.") from error
    if len(request.query_params.multi_items()) > MAX_QUERY_FIELDS:
        raise BadRequest(f"The query has too many fields: expected at most {MAX_QUERY_FIELDS}.")
    return Call(site, request, params, user)


def route(
    methods: str, path: str, handler: Callable[[Call], Any], check: Callable[[Call], object] = Call.login
) -> Route:
    """Return a route that calls a function in a thread and sends its result as JSON.

    Args:
        methods: the methods, separated by spaces.
        path: the path, with parameters in braces.
        handler: the function.
        check: called before the body is read, to raise the refusal of a caller without permission. GET has no body.
    """

    async def endpoint(request: Request) -> Response:
        call = open_call(request)
        if request.method not in ("GET", "HEAD"):
            await run_in_threadpool(check, call)
            call = replace(call, body=await read_body(request))
        answer = await run_in_threadpool(handler, call)
        return answer if isinstance(answer, Response) else JSONResponse(answer)

    return Route(path, endpoint, methods=methods.split())


def streaming_route(methods: str, path: str, handler: Callable[[Call], Awaitable[Response]]) -> Route:
    """Return a route that calls a coroutine, which reads the body chunk by chunk."""

    async def endpoint(request: Request) -> Response:
        return await handler(open_call(request))

    return Route(path, endpoint, methods=methods.split())
