"""What the Hub lists: the models that a query or a collection stands for, and how a repo stands now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal

from huggingface_hub import ModelInfo
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hubmerge.errors import HubError
from hubmerge.hub.client import api, call
from merge_recipes import ModelCollection, ModelQuery, ModelReference


@dataclass(frozen=True, order=True)
class ListedModel:
    """A model repo and when it was made; sorted by that, ties by name."""

    created: datetime
    repo: str

    @classmethod
    def of(cls, info: ModelInfo) -> ListedModel:
        """Take what is needed from the Hub's description.

        Raises:
            HubError: the Hub does not say when the repo was made.
        """
        if info.created_at is None:
            raise HubError(
                f"model {info.id}: the Hub does not say when it was made", hint="list the models in the recipe"
            )
        return cls(info.created_at, info.id)


def find_models(query: ModelQuery | ModelCollection) -> tuple[str, ...]:
    """Return the model repos that a query or a collection stands for now, in the order in which they were made.

    Raises:
        HubError: there is no such collection, or the Hub does not answer.
    """
    found = _matching(query) if isinstance(query, ModelQuery) else _collected(query.collection)
    return tuple(model.repo for model in sorted(set(found)))


def _matching(query: ModelQuery) -> Iterable[ListedModel]:
    listed = call(
        f"models that fit {query}",
        lambda: list(api().list_models(author=query.author, search=query.literal or None, filter=query.tags or None)),
    )
    return [ListedModel.of(info) for info in listed if query.fits(info.id)]


def _collected(slug: str) -> Iterable[ListedModel]:
    collection = call(f"collection {slug}", lambda: api().get_collection(slug))
    repos = [item.item_id for item in collection.items if item.item_type == "model"]
    # A collection does not say when its items were made, so each is asked for.
    return [
        ListedModel.of(call(f"model {repo} of collection {slug}", partial(api().model_info, repo))) for repo in repos
    ]


@dataclass(frozen=True)
class RepoStatus:
    """How a repo stands on the Hub now: there, with the commit of a revision, or why it cannot be read."""

    state: Literal["there", "deleted", "gated", "disabled"]
    commit: str | None = None


def repo_status(kind: str, path: str, revision: str | None) -> RepoStatus:
    """Return how a model or dataset repo stands now at a revision (default: main).

    A private repo that this token may not see reads as deleted: the Hub does not tell them apart.

    Raises:
        HubError: the Hub does not answer, or does not accept the token.
    """

    def ask() -> RepoStatus:
        try:
            describe = api().dataset_info if kind == "dataset" else api().model_info
            info = describe(path, revision=revision)
            if info.gated:
                api().auth_check(path, repo_type=kind)
        except GatedRepoError:
            return RepoStatus("gated")
        except DisabledRepoError:
            return RepoStatus("disabled")
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return RepoStatus("deleted")
        return RepoStatus("there", info.sha)

    return call(f"{kind} {path} at revision {revision or 'main'}", ask)


def newest_commits(reference: ModelReference) -> tuple[str, str | None] | None:
    """Return the commits that a reference and its adapter stand at now, None if one of them cannot be read."""
    adapter = reference.adapter
    commit = repo_status("model", reference.path, reference.revision).commit
    adapter_commit = None if adapter is None else repo_status("model", adapter.path, adapter.revision).commit
    return None if commit is None or (adapter is not None and adapter_commit is None) else (commit, adapter_commit)
