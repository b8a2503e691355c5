"""Queries, collections and the status of repos."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from huggingface_hub import HfApi
from huggingface_hub.hf_api import ModelInfo

from hubmerge.errors import HubError
from hubmerge.hub.listing import ListedModel, RepoStatus, find_models, newest_commits, repo_status
from merge_recipes import ModelCollection, ModelQuery, ModelReference
from tests.conftest import STRANGER_TOKEN
from tests.hub.conftest import Repo

MakeRepo = Callable[..., Repo]
ONE_FILE = {"a.txt": b"a"}


def test_a_query_finds_matching_names_in_the_order_of_creation(
    make_repo: MakeRepo, repo_name: Callable[..., str]
) -> None:
    prefix = repo_name("query")
    names = [f"{prefix}-z", f"{prefix}-a", f"{prefix}-m"]
    for name in names:
        make_repo(ONE_FILE, name=name)
    assert find_models(ModelQuery(query=f"{prefix}-*")) == tuple(names)
    assert find_models(ModelQuery(query=f"{prefix}-?")) == tuple(names)
    assert find_models(ModelQuery(query=f"{prefix}-none*")) == ()


def test_a_query_with_tags_finds_models_that_have_all_of_them(
    make_repo: MakeRepo, repo_name: Callable[..., str]
) -> None:
    prefix = repo_name("tagged")
    for name, tags in (("one", "[x]"), ("two", "[x, y]")):
        make_repo({"README.md": f"---\ntags: {tags}\n---\n".encode()}, name=f"{prefix}-{name}")
    assert find_models(ModelQuery(query=f"{prefix}-*", tags=("x", "y"))) == (f"{prefix}-two",)
    assert find_models(ModelQuery(query=f"{prefix}-*", tags=("x",))) == (f"{prefix}-one", f"{prefix}-two")


def test_a_collection_is_sorted_by_creation(make_repo: MakeRepo, repo_name: Callable[..., str]) -> None:
    first, second = make_repo(ONE_FILE), make_repo(ONE_FILE)
    slug = HfApi().create_collection(repo_name("things").replace("/", "-"), exists_ok=True).slug
    for repo in (second, first):
        HfApi().add_collection_item(slug, repo.name, "model")
    assert find_models(ModelCollection(collection=slug)) == (first.name, second.name)


def test_a_missing_collection() -> None:
    slug = "local/nothing-0123456789abcdef01234567"
    with pytest.raises(HubError, match=f"collection {slug}"):
        find_models(ModelCollection(collection=slug))


def test_models_of_one_time_are_sorted_by_name() -> None:
    when = datetime(2026, 1, 1, tzinfo=timezone.utc)
    models = [ListedModel(when, "me/b"), ListedModel(when, "me/a"), ListedModel(when - timedelta(seconds=1), "me/z")]
    assert [model.repo for model in sorted(models)] == ["me/z", "me/a", "me/b"]


def test_a_model_without_a_time_of_creation_is_refused() -> None:
    info: Any = ModelInfo
    with pytest.raises(HubError, match="me/x: the Hub does not say when the repo was created") as raised:
        ListedModel.of(info(id="me/x", sha="0" * 40, private=False, downloads=0, likes=0, tags=[]))
    assert raised.value.context.repo == "me/x"


def test_the_status_of_repos(
    make_repo: MakeRepo, repo_name: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    readable, gated, private = make_repo(ONE_FILE), make_repo(ONE_FILE), make_repo(ONE_FILE, private=True)
    HfApi().update_repo_settings(gated.name, gated="manual")
    assert repo_status("model", readable.name, None) == RepoStatus("there", readable.commit)
    assert repo_status("model", gated.name, None) == RepoStatus("there", gated.commit)
    assert repo_status("model", readable.name, "v9") == RepoStatus("deleted")
    assert repo_status("dataset", repo_name("nowhere"), None) == RepoStatus("deleted")
    monkeypatch.setenv("HF_TOKEN", STRANGER_TOKEN)
    assert repo_status("model", gated.name, None) == RepoStatus("gated")
    assert repo_status("model", private.name, None) == RepoStatus("deleted")


def test_the_newest_commits_of_a_model_and_its_adapter(make_repo: MakeRepo, repo_name: Callable[..., str]) -> None:
    model, adapter = make_repo(ONE_FILE), make_repo(ONE_FILE)
    alone = ModelReference.parse(model.name)
    assert newest_commits(alone) == (model.commit, None)
    assert newest_commits(ModelReference.parse(f"{model.name}+{adapter.name}")) == (model.commit, adapter.commit)
    assert newest_commits(ModelReference.parse(f"{model.name}+{repo_name('nowhere')}")) is None
    assert newest_commits(ModelReference.parse(f"{repo_name('nowhere')}+{adapter.name}")) is None
