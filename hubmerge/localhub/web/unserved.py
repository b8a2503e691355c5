"""Answers for addresses that are not served: a sentence that says so, and never that a repo is missing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from hubmerge.localhub.refusals import NotFound, NotServed, Refusal, RepositoryMissing, WrongMethod
from hubmerge.localhub.registry import RESERVED
from hubmerge.localhub.repository import KINDS

API = {
    "agent-harnesses": "the list of coding agents",
    "buckets": "storage buckets",
    "daily_papers": "papers",
    "docs": "documentation",
    "jobs": "jobs",
    "kernels": "kernels",
    "notifications": "notifications",
    "organizations": "members and other details of organizations",
    "papers": "papers",
    "recent-activity": "the activity of users",
    "resolve-cache": "a cache of files",
    "resource-groups": "resource groups",
    "scheduled-jobs": "scheduled jobs",
    "settings": "webhooks and other settings of an account",
    "sql-console": "the SQL console",
    "telemetry": "telemetry",
    "trending": "trends",
    "users": "followers and other details of users",
}
"""What the addresses under `/api/` are about, by their next part."""
API_REPO = {
    "community": "settings of discussions",
    "compare": "comparisons of revisions",
    "croissant": "Croissant metadata",
    "dev-mode": "running Spaces",
    "discussions": "this change of a discussion",
    "duplicate": "copies of whole repos",
    "events": "running Spaces",
    "hardware": "running Spaces",
    "jwt": "tokens for other services",
    "leaderboard": "leaderboards",
    "lfs-files": "lists of all large files of a repo",
    "like": "likes",
    "likers": "likes",
    "logs": "running Spaces",
    "metrics": "running Spaces",
    "notebook": "notebooks",
    "parquet": "conversions to Parquet",
    "pause": "running Spaces",
    "resolve": "files of repos under /api/; they are served at /OWNER/NAME/resolve/REVISION/PATH",
    "resource-group": "resource groups",
    "restart": "running Spaces",
    "runtime": "running Spaces",
    "safetensors-metadata": "headers of safetensors files; a client can read them from the files",
    "scan": "scans of files",
    "secrets": "secrets of Spaces",
    "security": "scans of files",
    "sleeptime": "running Spaces",
    "treesize": "sizes of folders",
    "user-access-report": "reports on access requests",
    "user-access-request": "this change of an access request",
    "variables": "variables of Spaces",
    "volumes": "volumes of Spaces",
    "watch": "notifications",
    "xet-read-token": "downloads through Xet; files are served at /OWNER/NAME/resolve/REVISION/PATH",
}
"""What the addresses of a repo under `/api/` are about, by the part after its id."""
PAGES = {
    "buckets": "storage buckets",
    "chat": "chats",
    "collections": "pages of collections",
    "docs": "documentation",
    "join": "new accounts",
    "jobs": "jobs",
    "kernels": "kernels",
    "login": "logins of browsers",
    "logout": "logins of browsers",
    "models": "the page of all models; they are listed at /",
    "datasets": "the page of all datasets; they are listed at /",
    "spaces": "the page of all Spaces; they are listed at /",
    "new": "forms",
    "oauth": "OAuth",
    "organizations": "members and other details of organizations",
    "papers": "papers",
    "settings": "settings of an account",
    "uploads": "uploads outside of repos",
    ".well-known": "OAuth",
}
"""What pages and addresses for OAuth are about, by their first part."""
PAGES_REPO = {
    "app": "running Spaces",
    "blame": "the authors of lines",
    "community": "forms; discussions are served at /OWNER/NAME/discussions",
    "delete": "forms",
    "edit": "forms",
    "embed": "running Spaces",
    "git-receive-pack": "git; upload with `hf upload`",
    "git-upload-pack": "git; download with `hf download`",
    "info": "git; use `hf download` and `hf upload`",
    "logs": "running Spaces",
    "new": "forms",
    "objects": "git; use `hf download` and `hf upload`",
    "settings": "forms; settings are changed through PUT /api/models/OWNER/NAME/settings",
    "upload": "forms; upload with `hf upload`",
    "viewer": "previews of datasets",
}
"""What the pages of a repo are about, by the part after its id."""
NOT_REPOS = {
    "/api/spaces/hardware": "running Spaces",
    "/api/spaces/semantic-search": "searches for Spaces by meaning",
    "/api/spaces/templates": "templates of Spaces",
    "/api/spaces/zero-gpu/quota": "running Spaces",
}
"""Addresses that look like those of repos, and what they are about."""
MODEL_APIS = ("chat", "completions", "embeddings", "images", "messages", "models", "responses")
"""Parts after `/v1/` of addresses for inference. Other ones belong to Xet, whose clients need status 404."""
OF_REPOS = frozenset(
    {
        "auth-check", "branch", "commit", "commits", "discussions", "paths-info", "preupload", "refs", "revision",
        "settings", "super-squash", "tag", "tree", "xet-write-token",
    }
)  # fmt: skip
"""Parts after the id of a repo that are served."""
PROGRAMS = ("api", "v1", "v2", "lfs", "xet")
"""First parts of addresses for programs, served or not."""


def subject_of(parts: Sequence[str]) -> str | None:
    """Return what an address that is not served is about, or None if the Hub does not have it either."""
    first, rest = parts[0], list(parts[1:])
    if first == "api":
        if rest and rest[0] in KINDS and len(rest) > 3:
            return API_REPO.get(rest[3], "this part of the API of repos")
        return API.get(rest[0] if rest else "", "this part of the API of the Hub")
    if first == "v1" and rest and rest[0] in MODEL_APIS:
        return "inference"
    if first in PAGES and not (first in KINDS and rest):
        return PAGES[first]
    if first in KINDS:
        first, rest = (rest[0], rest[1:]) if rest else ("", [])
    if first in PROGRAMS or len(rest) < 2:
        return None
    if rest[0].endswith(".git"):
        return "locks of large files" if "locks" in rest else PAGES_REPO["info"]
    return PAGES_REPO.get(rest[1])


def names_no_owner(parts: Sequence[str]) -> bool:
    """Return True for the address of a repo, or of a part of it, whose id has no owner: `gpt2`."""
    if parts[0] == "api":
        return len(parts) > 2 and parts[1] in KINDS and (len(parts) == 3 or parts[3] in OF_REPOS)
    if parts[0] in KINDS:
        parts = parts[1:]
    return len(parts) > 2 and parts[0] not in RESERVED and parts[1] in ("resolve", "raw")


def allowed_methods(routes: Sequence[BaseRoute], scope: Scope) -> str:
    """Return the methods that are served at an address, for the `Allow` header."""
    methods: set[str] = set()
    for route in routes:
        if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return ", ".join(sorted(methods))


def refusal_for(routes: Sequence[BaseRoute], scope: Scope, *, anonymous: bool) -> Refusal:
    """Return the refusal of a request that no route serves."""
    path: str = scope["path"]
    parts = path.strip("/").split("/")
    subject = subject_of(parts)
    if parts[0] in PAGES.keys() - KINDS.keys() | {"v1"} and subject is not None:
        return NotServed(sentence(scope["method"], path, subject))
    methods = allowed_methods(routes, scope)
    if methods:
        return WrongMethod(scope["method"], methods)
    if names_no_owner(parts):
        return RepositoryMissing(anonymous=anonymous)
    if subject is not None:
        return NotServed(sentence(scope["method"], path, subject))
    return NotFound(f"Nothing is served at {unquote(path)}.")


async def refuse_not_repo(request: Request) -> Response:
    """Raise the refusal of an address that looks like that of a repo."""
    path: str = request.scope["path"]
    raise NotServed(sentence(request.method, path, NOT_REPOS[path]))


def sentence(method: str, path: str, subject: str) -> str:
    """Return the message for an address that is not served."""
    what, _, instead = subject.partition("; ")
    place = re.sub(r"\s", " ", unquote(path, errors="replace"))
    hint = f" {instead[0].upper()}{instead[1:]}." if instead else ""
    return f"This Hub does not serve {what} ({method} {place[:200]}).{hint}"


ROUTES = [Route(path, refuse_not_repo, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]) for path in NOT_REPOS]
