"""`hubmerge verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from hubmerge.api import published
from hubmerge.cli.options import WORK_DIR, Json, Quiet, WorkDir, command_context

DIFFERS = 6
"""Exit status if a check found a difference."""

PARTLY_VERIFIED = 7
"""Exit status if nothing differs, but some checks were not possible."""


Release: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="REPO[@step-03]|DIR", help="Published repo, and a step unless it is the newest; or a folder."
    ),
]


def verify(
    context: typer.Context,
    release: Release,
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Check signature, files, digests, chain, lock and card only; merge nothing.")
    ] = False,
    from_parts: Annotated[
        bool,
        typer.Option("--from-parts", help="Add the states of a combined stream's parts; do not merge checkpoints."),
    ] = False,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="Public key that the signature must be by.")] = None,
    identity: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Identity that a keyless signature must be by, such as a workflow's address."
        ),
    ] = None,
    identity_provider: Annotated[str | None, typer.Option(metavar="URL", help="OIDC provider of the identity.")] = None,
    work_dir: WorkDir = WORK_DIR,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Merge all steps up to a published one again and compare everything."""
    progress = command_context(context, quiet=quiet, json=json).progress()
    verdict = published.verify(
        release,
        quick=quick,
        from_parts=from_parts,
        key=key,
        identity=identity,
        identity_provider=identity_provider,
        work_dir=work_dir,
        progress=progress,
    )
    progress.note(verdict.summary)
    counts = {"differences": len(verdict.differences), "unknown": len(verdict.unknown)}
    progress.event("done", {"verified": verdict.verified, **counts})
    return DIFFERS if verdict.differences else PARTLY_VERIFIED if verdict.unknown else 0
