"""`hubmerge rollback`."""

from __future__ import annotations

from typing import Annotated

import typer

from hubmerge.api import published
from hubmerge.cli.options import Json, Quiet, command_context
from hubmerge.support.names import parse_step_tag
from hubmerge.support.text import short_commit


def parse_step(text: str) -> int:
    """Read the number of a step.

    Example:
        >>> parse_step("step-03"), parse_step("3")
        (3, 3)

    Raises:
        BadParameter: the text is not a step.
    """
    digits = text.removeprefix("step-").lstrip("0").zfill(2)
    step = parse_step_tag(f"step-{digits}")
    if step is None:
        raise typer.BadParameter(f"{text} is not a step: expected step-03, or 3")
    return step


def rollback(
    context: typer.Context,
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Repo that a recipe publishes to.")],
    *,
    to: Annotated[int, typer.Option(parser=parse_step, metavar="step-03", help="Step to restore.")],
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Restore an earlier step on the main branch of a repo."""
    progress = command_context(context, quiet=quiet, json=json).progress()
    commit = published.rollback(repo, to)
    progress.note(f"{repo} is at step {to} again (commit {short_commit(commit)}); tags of later steps were deleted")
    progress.event("done", {"repo": repo, "step": to, "commit": commit})
    return 0
