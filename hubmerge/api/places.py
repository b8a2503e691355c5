"""Published steps as arguments name them: a repo with a revision, or a folder."""

from __future__ import annotations

import os
from pathlib import Path

from hubmerge.errors import UsageError


def place_of(published: str) -> tuple[str | Path, str | None]:
    """Return the repo and the revision that a text names, or the folder and no revision.

    Raises:
        UsageError: the text is the path of a folder that does not exist, or names more than a repo and a revision.
    """
    from merge_recipes import ModelReference

    if os.path.isdir(published):  # noqa: PTH112 - Path.is_dir raises for long names
        return Path(published), None
    reference = ModelReference.parse(published)
    if reference.is_local:
        raise UsageError(f"folder not found: {published}", hint="name a folder that `hubmerge run --out` wrote")
    repo = ModelReference(reference.path, reference.revision)
    if repo != reference:
        raise UsageError(f"{published}: a published step has no adapter and no subfolder", hint=f"write {repo}")
    return reference.path, reference.revision


def repo_of(published: str, purpose: str) -> str:
    """Return the repo of a stream whose newest step a command changes.

    Args:
        published: the text of an argument.
        purpose: what the command does, for messages.

    Raises:
        UsageError: the text names a folder, or one step.
    """
    from merge_recipes import ModelReference

    reference = ModelReference.parse(published)
    if reference.is_local:
        raise UsageError(
            f"{published} is a folder; {purpose} needs a published repo, owner/name",
            hint="publish the stream: add `publish: {repo: owner/name}` to its recipe and run it; or change the recipe "
            "and run it again",
        )
    if ModelReference(reference.path) != reference:
        raise UsageError(
            f"{published}: {purpose} starts from the newest step", hint=f"write the repo alone: {reference.path}"
        )
    return reference.path
