"""Hint for a new commit of a source that does not fit: the stream can stay without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hubmerge.errors import CheckpointError
from hubmerge.stream.new_commits import is_added
from hubmerge.stream.stream import Stream


@contextmanager
def new_commits_named(stream: Stream) -> Iterator[None]:
    """Add to an error about a commit that `on_update` added how to leave the commit out."""
    try:
        yield
    except CheckpointError as error:
        commit, on_update = error.context.commit, stream.recipe.on_update
        models = stream.lock.models
        if commit is not None and any(
            model.commit == commit and is_added(model, models[:index]) for index, model in enumerate(models)
        ):
            instead = f"write `on_update: ignore` in place of `{on_update}` to leave this new commit out"
            error.hint = f"{instead}; or {error.hint}" if error.hint else instead
        raise
