"""Rolling a target repo back to an earlier step. Files of other people stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError

from hubmerge.errors import TargetError
from hubmerge.hub.checked_files import list_entries
from hubmerge.hub.failures import status_of
from hubmerge.hub.fetch import resolve_commit
from hubmerge.hub.own_files import signature_of
from hubmerge.hub.publish import delete_tag
from hubmerge.hub.published import (
    download_file,
    entry_digest,
    entry_digests,
    has_content,
    missing_step,
    published_tags,
)
from hubmerge.hub.retry import call, create_commit
from hubmerge.support.names import CARD_FILE, GIT_ATTRIBUTES, REPORT_FILE, parse_history_file, step_tag
from hubmerge.support.strict_json import StrictJSONError, read_strict_json
from hubmerge.support.text import listed

MergeCard = Callable[[str, str], "str | None"]
"""Returns the card of the earlier step with what people wrote in the newest one, None if that is not possible."""


def roll_back(repo: str, step: int, merge_card: MergeCard | None = None) -> str:
    """Restore the files of an earlier step on main by one commit, delete the tags of later steps, return the commit.

    Only files that hubmerge published, as it published them, are replaced or deleted. The later commits stay in the
    history.

    Args:
        repo: the target repo.
        step: the step, counted from 1.
        merge_card: merges the cards if people wrote in the newest one.

    Raises:
        TargetError: the tag names another step, or a file to restore was changed by other people.
        HubError: the step has no tag, or the token has no write access.
    """
    tags = published_tags(repo)
    if step not in tags:
        raise missing_step(repo, step_tag(step), tags)
    head = resolve_commit("model", repo, "main")
    earlier, present = _Files.at(repo, tags[step], tags[step]), _Files.at(repo, head, tags[max(tags)])
    _check_step(earlier, step)
    restored = {path: digest for path, digest in earlier.digests.items() if path in earlier.own - {GIT_ATTRIBUTES}}
    removed = sorted(present.own - set(restored) - {GIT_ATTRIBUTES})
    operations: list[Any] = [*_restoring(earlier, present, restored, merge_card), *map(CommitOperationDelete, removed)]

    def restore() -> str:
        try:
            return create_commit(repo, operations, f"Roll back to {step_tag(step)}", parent_commit=head)
        except HfHubHTTPError as error:
            # The response to an earlier attempt may have been lost, so the content of the repo decides.
            newest = resolve_commit("model", repo, "main") if status_of(error) == 412 else head
            if newest == head or not _is_rolled_back(entry_digests(list_entries(repo, newest)), restored, removed):
                raise
            return newest

    commit = call(f"rolling back {repo} to {step_tag(step)}", restore, repo=repo) if operations else head
    for later in tags:
        if later > step:
            delete_tag(repo, step_tag(later))
    return commit


@dataclass(frozen=True)
class _Files:
    """Files of a target repo at a commit.

    Attributes:
        repo: the target repo.
        commit: the commit.
        entries: the files, as the Hub lists them.
        own: the files that are as hubmerge published them.
        last_step: the last step of the report; None without a report that can be read.
    """

    repo: str
    commit: str
    entries: dict[str, Any]
    own: frozenset[str]
    last_step: int | None

    @classmethod
    def at(cls, repo: str, commit: str, tagged: str) -> _Files:
        """Read the files at a commit.

        The list in the report names those of hubmerge. Without a list it is the files at the commit `tagged`; so it is
        for the reports of single steps.
        """
        entries = list_entries(repo, commit)
        report = _read_report(repo, commit) if REPORT_FILE in entries else {}
        steps = report.get("steps")
        last = steps[-1].get("step") if isinstance(steps, list) and steps and isinstance(steps[-1], dict) else None
        files = report.get("all_files")
        signature = signature_of(repo, commit, entries)
        known = entry_digests(list_entries(repo, tagged))
        as_tagged = {path for path, entry in entries.items() if known.get(path) == entry_digest(entry)}
        if isinstance(files, dict) and files:
            same = {path for path, file in files.items() if path in entries and _has(repo, commit, entries[path], file)}
            history = {path for path in as_tagged if parse_history_file(path)}
            return cls(repo, commit, entries, frozenset({REPORT_FILE, *same, *history, *signature}), last)
        return cls(repo, commit, entries, frozenset({*as_tagged, *signature}), last)

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each file."""
        return entry_digests(self.entries)

    def text(self, path: str) -> str:
        """Return the text of a small file."""
        return download_file(self.repo, self.commit, path).read_text(encoding="utf-8", errors="replace")


def _read_report(repo: str, commit: str) -> dict[str, Any]:
    try:
        report = read_strict_json(download_file(repo, commit, REPORT_FILE).read_text(encoding="utf-8"))
    except (StrictJSONError, UnicodeDecodeError):
        return {}
    return report if isinstance(report, dict) else {}


def _has(repo: str, commit: str, entry: Any, file: Any) -> bool:
    sha256 = file.get("sha256") if isinstance(file, dict) else None
    return isinstance(sha256, str) and has_content(repo, commit, entry.path, entry_digest(entry), sha256)


def _check_step(earlier: _Files, step: int) -> None:
    if earlier.last_step != step:
        raise TargetError(
            f"tag {step_tag(step)} of {earlier.repo} names commit {earlier.commit}, whose report ends at step "
            f"{earlier.last_step}",
            hint=f"delete the tag {step_tag(step)} on the Hub; the next run sets it on the commit of the step",
            repo=earlier.repo,
            commit=earlier.commit,
        )


def _restoring(
    earlier: _Files, present: _Files, restored: Mapping[str, str], merge_card: MergeCard | None
) -> list[Any]:
    """Return the operations that restore the files of an earlier step.

    Raises:
        TargetError: a file to replace was changed by other people.
    """
    operations: list[Any] = []
    in_the_way = []
    for path, digest in restored.items():
        found = present.digests.get(path)
        if found == digest:
            continue
        card = None
        if found is not None and path not in present.own:
            if path == CARD_FILE and merge_card is not None:
                card = merge_card(earlier.text(path), present.text(path))
            if card is None:
                in_the_way.append(path)
                continue
        if card is not None:
            operations.append(CommitOperationAdd(path, card.encode()))
        elif earlier.entries[path].lfs is not None:
            operations.append(CommitOperationCopy(path, path, src_revision=earlier.commit))
        else:
            operations.append(CommitOperationAdd(path, download_file(earlier.repo, earlier.commit, path)))
    if in_the_way:
        raise TargetError(
            f"target repo {present.repo} has files that hubmerge did not publish: {listed(in_the_way)}; rolling back "
            "would replace them",
            hint="rename or delete these files there, then roll back again",
            repo=present.repo,
            commit=present.commit,
            file=in_the_way[0],
        )
    return operations


def _is_rolled_back(found: Mapping[str, str], restored: Mapping[str, str], removed: list[str]) -> bool:
    same = all(found.get(path) == digest for path, digest in restored.items() if path != CARD_FILE)
    return same and not any(path in found for path in removed)
