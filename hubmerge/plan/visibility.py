"""Inputs of a merge that fewer people can read than the merged model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from hubmerge.hub.client import endpoint
from hubmerge.hub.offline import is_offline
from hubmerge.hub.visibility import STRICTNESS, Visibility, repo_visibility
from hubmerge.stream.licenses import InputLicense
from hubmerge.stream.pinned import published_steps
from hubmerge.stream.stream import Stream
from hubmerge.support.text import listed
from merge_recipes.references import is_local_path

REPOS_AT_ONCE = 8
"""Number of repos that are asked for at the same time."""

REPOS_SHOWN = 6
"""Number of repos that a warning names."""

_Repo: TypeAlias = tuple[str, str]
"""Kind of a repo, "model" or "dataset", and its path."""


def visibility_warnings(stream: Stream, inputs: Sequence[InputLicense]) -> tuple[str, ...]:
    """Return warnings about a merged model that more people can read than its inputs.

    The visibility of a target repo that exists counts, whatever the recipe asks for. Entries that are published there
    already are left out. Offline, there are no warnings.

    Args:
        stream: The stream.
        inputs: The models that are merged, and those that lend their tokenizers.

    Raises:
        HubError: The Hub does not respond.
    """
    publish = stream.recipe.publish
    if publish is None or is_offline():
        return ()
    return (*_without_effect(stream), *_stricter_inputs(stream, inputs))


def target_visibility(stream: Stream) -> Visibility:
    """Return the visibility of the target repo: the real one, or that with which a run creates the repo."""
    target, publish = stream.target, stream.recipe.publish
    if target is not None and target.head is not None:
        return target.visibility
    return "private" if publish is not None and publish.private else "public"


def _exists(stream: Stream) -> bool:
    return stream.target is not None and stream.target.head is not None


def _without_effect(stream: Stream) -> Iterator[str]:
    """Yield a warning if the recipe asks for a private repo, and the target repo exists and is not private."""
    publish, visibility = stream.recipe.publish, target_visibility(stream)
    if publish is not None and publish.private and visibility != "private":
        yield (
            f"`private: true` has no effect: {publish.repo} exists and is {visibility}; change it in "
            f"{_settings(publish.repo)}"
        )


def _stricter_inputs(stream: Stream, inputs: Sequence[InputLicense]) -> Iterator[str]:
    """Yield a warning that names all inputs which fewer people can read than the target repo."""
    publish, visibility, exists = stream.recipe.publish, target_visibility(stream), _exists(stream)
    if publish is None or visibility == "private":
        return
    repos = list(dict.fromkeys((*_models(stream, inputs), *_datasets(stream))))
    with ThreadPoolExecutor(REPOS_AT_ONCE) as pool:
        found = list(pool.map(lambda repo: repo_visibility(*repo), repos))
    least = STRICTNESS.index(visibility)
    stricter = [
        f"{path} ({seen}{' data set' if kind == 'dataset' else ''})"
        for (kind, path), seen in zip(repos, found, strict=True)
        if seen is not None and path != publish.repo and STRICTNESS.index(seen) > least
    ]
    if stricter:
        new = f"write `publish: {{repo: {publish.repo}, private: true}}`"
        change = f"make it private in {_settings(publish.repo)}" if exists else new
        yield (
            f"{publish.repo} {'is' if exists else 'will be'} {visibility}, and fewer people can read these inputs: "
            f"{listed(stricter, REPOS_SHOWN)}; {change}, unless their owners agree"
        )


def _models(stream: Stream, inputs: Sequence[InputLicense]) -> Iterator[_Repo]:
    published = 0 if stream.replay else published_steps(stream.target)
    for one in inputs:
        if not (one.revoked or one.source.is_local or 0 < one.step <= published):
            yield "model", one.source.reference.path


def _datasets(stream: Stream) -> Iterator[_Repo]:
    evaluate = stream.recipe.evaluate
    for task in evaluate.tasks if evaluate is not None else ():
        for source in task.dataset.sources:
            if not is_local_path(source.path):
                yield "dataset", source.path


def _settings(repo: str) -> str:
    return f"{endpoint()}/{repo}/settings"
