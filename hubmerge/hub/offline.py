"""Files of a commit in the Hub cache, for work without the Hub (`HF_HUB_OFFLINE=1`) and for other libraries."""

from __future__ import annotations

from pathlib import Path

from hubmerge.errors import HubError
from hubmerge.hub.cached_files import cached_file, cached_files, files_below, is_offline
from hubmerge.hub.checked_files import difference, stored_file
from hubmerge.hub.remote_file import Kind, snapshot_folder
from hubmerge.support.damage import set_aside
from hubmerge.support.files import unique_partial_path, write_text_atomic
from hubmerge.support.names import parse_step_tag
from merge_recipes.references import is_commit

__all__ = ["cached_commit", "cached_files", "cached_tags", "is_offline", "record_commit", "refuse_unpinned"]


def set_aside_damaged_files(repo: str, commit: str, kind: Kind) -> None:
    """Set aside the files of a commit in the Hub cache whose content is not what their names say.

    A library that reads the cache downloads them again.
    """
    snapshot = snapshot_folder(repo, commit, kind)
    for path in files_below(snapshot):
        problem = difference(path, cached_file(path, path.relative_to(snapshot).as_posix()))
        if problem is not None:
            set_aside(stored_file(path), problem)


def refuse_unpinned(kind: str, path: str, revision: str | None) -> HubError:
    """Return the error for a reference that no lock pins."""
    return HubError(
        f"{kind} {path} at revision {revision or 'main'}: HF_HUB_OFFLINE is set, and no lock pins the commit",
        hint="make a lock beside the recipe while the Hub can be reached: HF_HUB_OFFLINE=0 hubmerge lock RECIPE",
        repo=path,
    )


def record_commit(repo: str, revision: str, commit: str) -> None:
    """Record in the Hub cache which commit a branch or a tag of a model repo names, as the client does."""
    if not is_commit(revision):
        path = _refs(repo) / revision
        if not path.is_file() or path.read_text(encoding="utf-8") != commit:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text_atomic(path, commit, temporary=unique_partial_path(path))


def cached_commit(repo: str, revision: str) -> str:
    """Return the commit of a model repo that a revision named when it was last read.

    Raises:
        HubError: the Hub cache does not know it.
    """
    path = _refs(repo) / revision
    commit = revision if is_commit(revision) else path.read_text(encoding="utf-8") if path.is_file() else ""
    if is_commit(commit) and snapshot_folder(repo, commit, "model").is_dir():
        return commit
    raise HubError(
        f"model {repo} at revision {revision}: HF_HUB_OFFLINE is set, and the Hub cache does not have this revision",
        hint=f"HF_HUB_OFFLINE=0 hf download {repo} --revision {revision}",
        repo=repo,
    )


def cached_tags(repo: str) -> dict[int, str]:
    """Return the commit of each step of a model repo whose tag the Hub cache knows."""
    refs = _refs(repo)
    found = {number: path for path in refs.glob("step-*") if (number := parse_step_tag(path.name)) is not None}
    return {number: found[number].read_text(encoding="utf-8") for number in sorted(found)}


def _refs(repo: str) -> Path:
    return snapshot_folder(repo, "", "model").parent / "refs"
