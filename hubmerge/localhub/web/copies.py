"""Copies of large files between repos."""

from __future__ import annotations

from typing import Any

from hubmerge.localhub.objects import is_sha256
from hubmerge.localhub.refusals import BadRequest
from hubmerge.localhub.web.calls import PREFIXES, REPO, Call, readable, require_write, require_write_token, route
from hubmerge.localhub.web.parsing import object_list


def find_source(call: Call) -> None:
    """Raise the refusal of a caller who may not read the files of the source repo, or who may write nowhere."""
    call.readable_files()
    require_write_token(call)


def copy_large_files(call: Call) -> Any:
    """Allow the caller to add large files of the repo of the address to another repo."""
    repository, _ = call.readable_files()
    data = call.json()
    target = data.get("target")
    if not isinstance(target, dict) or target.get("type") not in PREFIXES:
        raise BadRequest("Expected a `target` with the type and the name of a repo.")
    _, settings = readable(call.site, call.user, target["type"], str(target.get("name")))
    user = require_write(call, settings.namespace, settings.id)
    known, failed = repository.large_files(), []
    for file in object_list(data, "files"):
        sha256 = str(file.get("sha256"))
        if is_sha256(sha256) and sha256 in known:
            call.site.possession.record(user.name, sha256)
        else:
            failed.append({"sha256": sha256, "error": "The source repo has no such large file."})
    return {"failed": failed}


ROUTES = [route("POST", REPO + "/lfs-files/duplicate", copy_large_files, find_source)]
