"""Routes for repos, refs and history."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, Response

from hubmerge.localhub.operations import check_path
from hubmerge.localhub.refnames import CONVERTS, DEFAULT_BRANCH, HEADS, PULLS, TAGS
from hubmerge.localhub.refusals import BadRequest, Conflict, EntryMissing, TooLarge
from hubmerge.localhub.web.calls import PREFIXES, REPO, Call, readable, repo_url, require_write, route
from hubmerge.localhub.web.card_check import card_errors
from hubmerge.localhub.web.describe import (
    CARD_LIMIT_BYTES,
    add_last_commits,
    describe_commit,
    describe_file,
    describe_repo,
    describe_tree,
)
from hubmerge.localhub.web.paging import page
from hubmerge.localhub.web.parsing import object_list, optional_text, read_content
from hubmerge.support.names import CARD_FILE

TREE_PAGE = 1000
COMMITS_PAGE = 50
MAX_PATHS = 20_000


def read_privacy(data: dict[str, Any], *, default: bool) -> bool:
    """Return True if the body asks for a private repo: `visibility` (clients from 2.0) or `private` (older clients)."""
    if data.get("visibility") in ("public", "private", "protected"):
        return data["visibility"] == "private"
    return default if data.get("private") is None else bool(data["private"])


def read_repo_id(call: Call, data: dict[str, Any]) -> tuple[str, str]:
    """Return kind and id of the repo that a body names."""
    kind = str(data.get("type") or "model")
    if kind not in PREFIXES or not isinstance(data.get("name"), str):
        raise BadRequest("Expected a `name` and a `type` of model, dataset or space.")
    name = data["name"]
    namespace = data.get("organization") or call.login().name
    return kind, name if "/" in name else f"{namespace}/{name}"


def first_files(data: dict[str, Any]) -> dict[str, bytes]:
    """Return the first files of a new repo: those in the body, and a card with the license that the body names."""
    files = {}
    for file in object_list({**data, "files": data.get("files") or []}, "files"):
        path = check_path(file.get("path"))
        files[path] = read_content(path, {"content": "", **file})
    license_name = optional_text(data, "license")
    if license_name:
        files.setdefault(CARD_FILE, f"---\nlicense: {json.dumps(license_name)}\n---\n".encode())
    return files


def create(call: Call) -> Any:
    """Create a repo."""
    call.login()
    data = call.json()
    kind, repo_id = read_repo_id(call, data)
    url = f"{call.endpoint}/{PREFIXES[kind]}{repo_id}"
    user = require_write(call, repo_id.partition("/")[0])
    try:
        call.site.registry.create(
            kind,
            repo_id,
            author=user.name,
            private=read_privacy(data, default=False),
            sdk=optional_text(data, "sdk"),
            files=first_files(data),
        )
    except Conflict as conflict:
        conflict.extra["url"] = url
        raise
    return {"url": url, "name": repo_id, "id": repo_id}


def delete(call: Call) -> Any:
    """Delete a repo."""
    user = call.login()
    kind, repo_id = read_repo_id(call, call.json())
    repository, settings = readable(call.site, user, kind, repo_id)
    require_write(call, settings.namespace, settings.id)
    call.site.registry.delete(repository)
    return {}


def move(call: Call) -> Any:
    """Change the id of a repo."""
    user = call.login()
    data = call.json()
    kind = str(data.get("type") or "model")
    repository, settings = readable(call.site, user, kind, str(data.get("fromRepo")))
    target = str(data.get("toRepo"))
    require_write(call, settings.namespace, settings.id)
    require_write(call, target.partition("/")[0])
    moved = call.site.registry.move(repository, target)
    return {"url": repo_url(call, moved.settings())}


def change_settings(call: Call) -> Any:
    """Change the visibility and the gate of a repo."""
    repository, settings, _ = call.writable()
    data = call.json()
    gated = data.get("gated", settings.gated)
    if gated is not False and gated not in ("auto", "manual"):
        raise BadRequest('`gated` is false, "auto" or "manual".')
    changed = repository.change_settings(private=read_privacy(data, default=settings.private), gated=gated)
    return {"private": changed.private, "gated": changed.gated}


def info(call: Call) -> Any:
    """Return the description of a repo at a revision (default: main)."""
    repository, settings = call.readable()
    commit_id = repository.resolve(call.params.get("revision", "main"))
    return describe_repo(call.site.store, repository, settings, commit_id, blobs=call.flag("blobs"))


def refs(call: Call) -> Any:
    """List branches, tags, conversions and, on request, pull requests."""
    repository, _ = call.readable()
    kinds = {"branches": HEADS, "tags": TAGS, "converts": CONVERTS}
    if call.flag("include_prs"):
        kinds["pullRequests"] = PULLS
    return {
        field: [
            {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit_id}
            for name, commit_id in repository.refs(kind).items()
        ]
        for field, kind in kinds.items()
    }


def commits(call: Call) -> Any:
    """List the history of a revision, newest first."""
    repository, _ = call.readable()
    history = repository.history(repository.resolve(call.params["revision"]))
    listed = [describe_commit(found, commit) for found, commit in history]
    answer = page(call, listed, COMMITS_PAGE)
    answer.headers["X-Total-Count"] = str(len(listed))
    return answer


def create_branch(call: Call) -> Any:
    """Create a branch at `startingPoint` (default: main), or an empty one; `overwrite` moves an existing branch."""
    repository, _, user = call.writable()
    data, branch = call.json(), call.params["revision"]
    start = optional_text(data, "startingPoint")
    empty, overwrite = data.get("emptyBranch") is True, data.get("overwrite") is True
    if overwrite and not (start or empty) and repository.ref(HEADS, branch) is not None:
        return Response(status_code=201)
    if empty:
        commit_id = repository.write_commit(
            {}, parents=(), changed=(), title="initial commit", message="", author=user.name
        )
    else:
        commit_id = repository.resolve(start or DEFAULT_BRANCH)
    repository.create_ref(HEADS, branch, commit_id, overwrite=overwrite)
    return Response(status_code=201)


def delete_branch(call: Call) -> Any:
    """Delete a branch other than `main`."""
    repository, _, _ = call.writable()
    if call.params["revision"] == "main":
        raise BadRequest("The branch main cannot be deleted.")
    repository.delete_ref(HEADS, call.params["revision"])
    return {}


def create_tag(call: Call) -> Any:
    """Tag the commit of a revision."""
    repository, _, _ = call.writable()
    commit_id = repository.resolve(call.params["revision"])
    repository.create_ref(TAGS, str(call.json().get("tag") or ""), commit_id)
    return Response(status_code=201)


def delete_tag(call: Call) -> Any:
    """Delete a tag."""
    repository, _, _ = call.writable()
    repository.delete_ref(TAGS, call.params["revision"])
    return {}


def super_squash(call: Call) -> Any:
    """Replace the history of a branch by one commit with all files."""
    repository, _, user = call.writable()
    with repository.locked():
        kind, name = repository.locate(call.params["revision"])
        tree = repository.tree(repository.resolve(call.params["revision"]))
        commit_id = repository.write_commit(
            tree,
            parents=(),
            changed=list(tree),
            title=str(call.json().get("message") or f"Super-squash branch '{name}' using huggingface_hub"),
            message="",
            author=user.name,
        )
        repository.write_ref(kind, name, commit_id)
    return {}


def tree(call: Call) -> Any:
    """List a folder."""
    repository, _ = call.readable()
    commit_id = repository.resolve(call.params["revision"])
    folder = call.params.get("path", "").strip("/")
    listing = describe_tree(repository.tree(commit_id), folder, recursive=call.flag("recursive"))
    if folder and not listing:
        raise EntryMissing(
            f"{folder} does not exist on {call.params['revision']!r}", headers={"X-Repo-Commit": commit_id}
        )
    if call.flag("expand"):
        add_last_commits(repository, commit_id, listing)
    return page(call, listing, TREE_PAGE)


def paths_info(call: Call) -> Any:
    """List the named files and folders that exist."""
    repository, _ = call.readable()
    commit_id = repository.resolve(call.params["revision"])
    if "json" in call.request.headers.get("content-type", ""):
        data = call.json()
        paths, expand = data.get("paths", []), bool(data.get("expand"))
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise BadRequest("Expected `paths` to be a list of paths.")
    else:
        try:
            form = parse_qs(call.body.decode("utf-8", errors="replace"), max_num_fields=MAX_PATHS)
        except ValueError as error:
            raise BadRequest(f"The form is invalid: {error}.") from error
        paths, expand = form.get("paths", []), form.get("expand", ["false"])[-1].lower() == "true"
    files = repository.tree(commit_id)
    folders = {item["path"]: item for item in describe_tree(files, "", recursive=True) if item["type"] == "directory"}
    items = []
    for path in dict.fromkeys(path.strip("/") for path in paths):
        if path in files:
            # The clients need some hash of Xet here to copy a large file to another repo; it is passed back unchanged.
            xet = {"xetHash": files[path].sha256} if files[path].sha256 else {}
            items.append({**describe_file(check_path(path), files[path]), **xet})
        elif path in folders:
            items.append(folders[path])
    if expand:
        add_last_commits(repository, commit_id, items)
    return items


def validate_yaml(call: Call) -> Any:
    """Check the metadata block of a card."""
    data = call.json()
    content = str(data.get("content", ""))
    if len(content) > CARD_LIMIT_BYTES:
        raise TooLarge(f"The card is too large: expected at most {CARD_LIMIT_BYTES} characters.")
    errors = [{"message": error} for error in card_errors(content, str(data.get("repoType") or "model"))]
    return JSONResponse({"errors": errors, "warnings": []}, status_code=400 if errors else 200)


ROUTES = [
    route("POST", "/api/repos/create", create),
    route("DELETE", "/api/repos/delete", delete),
    route("POST", "/api/repos/move", move),
    route("POST", "/api/validate-yaml", validate_yaml, check=lambda _: None),
    route("PUT", REPO + "/settings", change_settings, Call.writable),
    route("GET", REPO + "/refs", refs),
    route("GET", REPO + "/commits/{revision}", commits),
    route("POST", REPO + "/branch/{revision}", create_branch, Call.writable),
    route("DELETE", REPO + "/branch/{revision}", delete_branch, Call.writable),
    route("POST", REPO + "/tag/{revision}", create_tag, Call.writable),
    route("DELETE", REPO + "/tag/{revision}", delete_tag, Call.writable),
    route("POST", REPO + "/super-squash/{revision}", super_squash, Call.writable),
    route("GET", REPO + "/tree/{revision}", tree),
    route("GET", REPO + "/tree/{revision}/{path:path}", tree),
    route("POST", REPO + "/paths-info/{revision}", paths_info, Call.readable),
    route("GET", REPO + "/revision/{revision}", info),
    route("GET", REPO, info),
]
