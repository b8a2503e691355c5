"""Published steps as arguments name them: a repo with a revision, or a folder."""

from __future__ import annotations

import os
from pathlib import Path

from hubmerge.errors import MachineError


def place_of(published: str) -> tuple[str | Path, str | None]:
    """Return the repo and the revision that a text names, or the folder and no revision.

    Raises:
        MachineError: the text is the path of a folder that does not exist.
    """
    from merge_recipes import ModelReference

    if os.path.isdir(published):  # noqa: PTH112 - Path.is_dir raises for long names
        return Path(published), None
    reference = ModelReference.parse(published)
    if reference.is_local:
        raise MachineError(f"folder not found: {published}", hint="name a folder that `hubmerge run --out` wrote")
    return reference.path, reference.revision
