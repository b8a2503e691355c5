"""Lists of models for queries and collections, and the status of repos on the Hub."""

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
from hubmerge.hub.client import api
from hubmerge.hub.retry import call
from merge_recipes import ModelCollection, ModelQuery, ModelReference


@dataclass(frozen=True, order=True)
class ListedModel:
    """A model repo and the time of its creation. Instances sort by that time, then by name."""

    created: datetime
    repo: str

    @classmethod
    def of(cls, info: ModelInfo) -> ListedModel:
        """Return the name and the time of creation from the Hub's description of a model.

        Raises:
            HubError: the description has no time of creation.
        """
        if info.created_at is None:
            raise HubError(
                f"model {info.id}: the Hub does not say when the repo was created",
                hint=f"write `- model: {info.id}` in the recipe",
                repo=info.id,
            )
        return cls(info.created_at, info.id)


def find_models(query: ModelQuery | ModelCollection) -> tuple[str, ...]:
    """Return the model repos that a query or a collection finds now, the oldest repo first.

    Raises:
        HubError: the collection does not exist, or the Hub does not respond.
    """
    found = _matching(query) if isinstance(query, ModelQuery) else _collected(query.collection)
    return tuple(model.repo for model in sorted(set(found)))


def _matching(query: ModelQuery) -> Iterable[ListedModel]:
    listed = call(
        f"models that match {query}",
        lambda: list(api().list_models(author=query.author, search=query.literal or None, filter=query.tags or None)),
    )
    return [ListedModel.of(info) for info in listed if query.matches(info.id)]


def _collected(slug: str) -> Iterable[ListedModel]:
    collection = call(f"collection {slug}", lambda: api().get_collection(slug))
    repos = [item.item_id for item in collection.items if item.item_type == "model"]
    # A collection does not list times of creation, so each repo takes a request.
    return [
        ListedModel.of(call(f"model {repo} of collection {slug}", partial(api().model_info, repo), repo=repo))
        for repo in repos
    ]


@dataclass(frozen=True)
class SearchedModel:
    """A model that a search finds.

    Attributes:
        listed: its repo, and the time of its creation.
        bases: the models that its card names as base models.
        relation: what it is to them, such as `adapter` or `quantized`; None for what the Hub does not say.
    """

    listed: ListedModel
    bases: tuple[str, ...]
    relation: str | None


def search_models(text: str, limit: int) -> tuple[SearchedModel, ...]:
    """Return the models whose names have all words of a text, those that are downloaded most first.

    Args:
        text: the words.
        limit: the largest number of models.

    Raises:
        HubError: the Hub does not respond.
    """
    listed = call(
        f"models that match {text!r}", lambda: list(api().list_models(search=text, sort="downloads", limit=limit))
    )
    return tuple(_searched(info) for info in listed)


def _searched(info: ModelInfo) -> SearchedModel:
    """Read the base models from the tags, such as `base_model:me/base` and `base_model:adapter:me/base`."""
    marks = [
        tag.removeprefix("base_model:").rpartition(":") for tag in info.tags or () if tag.startswith("base_model:")
    ]
    bases = tuple(dict.fromkeys(base for _, _, base in marks))
    relation = next((relation for relation, _, _ in marks if relation), None)
    return SearchedModel(ListedModel.of(info), bases, relation)


@dataclass(frozen=True)
class RepoStatus:
    """The status of a repo now: "there" with the commit of a revision, or the reason why it cannot be read."""

    state: Literal["there", "deleted", "gated", "disabled"]
    commit: str | None = None


def repo_status(kind: str, path: str, revision: str | None) -> RepoStatus:
    """Return the status of a model or dataset repo at a revision.

    A private repo that this token cannot read counts as deleted, because the Hub does not distinguish the two.

    Args:
        kind: "model" or "dataset".
        path: the repo, owner/name.
        revision: a branch, tag or commit; None for main.

    Raises:
        HubError: the Hub does not respond, or rejects the token.
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

    return call(f"{kind} {path} at revision {revision or 'main'}", ask, repo=path)


def newest_commits(reference: ModelReference) -> tuple[str, str | None] | None:
    """Return the commits that a reference and its adapter name now, or None if one of them cannot be read."""
    adapter = reference.adapter
    commit = repo_status("model", reference.path, reference.revision).commit
    adapter_commit = None if adapter is None else repo_status("model", adapter.path, adapter.revision).commit
    return None if commit is None or (adapter is not None and adapter_commit is None) else (commit, adapter_commit)


@dataclass(frozen=True)
class ModelFacts:
    """What the card of a model says. Empty for a repo that cannot be read.

    Attributes:
        task: the kind of task.
        datasets: the data sets that it names.
        bases: the models that it was fine-tuned from.
    """

    task: str | None = None
    datasets: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()


def model_facts(path: str, revision: str | None) -> ModelFacts:
    """Return what the card of a model says.

    Args:
        path: the repo, owner/name.
        revision: a branch, tag or commit; None for main.

    Raises:
        HubError: the Hub does not respond, or rejects the token.
    """

    def ask() -> ModelFacts:
        try:
            info = api().model_info(path, revision=revision)
        except (DisabledRepoError, RepositoryNotFoundError, RevisionNotFoundError):
            return ModelFacts()
        card = info.card_data.to_dict() if info.card_data is not None else {}
        return ModelFacts(info.pipeline_tag, _names(card.get("datasets")), _names(card.get("base_model")))

    return call(f"model {path}", ask, repo=path)


def _names(value: object) -> tuple[str, ...]:
    """Return the names in a value of a card: a text or a list of texts."""
    names = [value] if isinstance(value, str) else value if isinstance(value, (list, tuple)) else []
    return tuple(name for name in names if isinstance(name, str))
