"""Cards with metadata that a Hub does not accept are refused by `validate-yaml` and in commits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
from huggingface_hub.errors import BadRequestError

from hubmerge.localhub import LocalHub
from hubmerge.support.card_rules import metadata_errors
from tests.localhub.hostile import HEADER, ask, lines, serve_users

Names = Callable[..., str]

REFUSED: dict[str, tuple[Any, str]] = {
    "a license by its name": ({"license": "Apache 2"}, '"license" must be one of [apache-2.0, mit,'),
    "a license in capitals": ({"license": "MIT"}, '"license" must be one of ['),
    "a license with its later versions": ({"license": "gpl-2.0-or-later"}, '"license" must be one of ['),
    "a number as license": ({"license": 2}, '"license" must be one of ['),
    "one license of a list": ({"license": ["mit", "mine"]}, '"license[1]" must be one of ['),
    "a link to another file": ({"license": "other", "license_link": "terms.txt"}, '"license_link" must be one of'),
    "a name of a license that is no text": ({"license": "other", "license_name": ["a"]}, '"license_name" must be a st'),
    "a language in capitals": ({"language": "EN"}, '"language" must only contain lowercase characters'),
    "a language with a region": ({"language": ["en", "pt_pt"]}, '"language[1]" with value "pt_pt" is not valid.'),
    "a language by its name": ({"language": "english"}, '"language" with value "english" is not valid.'),
    "no code of two letters": ({"language": "xx"}, '"language" with value "xx" is not valid.'),
    "Norwegian without quotes": ({"language": [False]}, '"language[0]" must be a string'),
    "tags as a text": ({"tags": "merge"}, '"tags" must be an array'),
    "a tag that is no text": ({"tags": ["merge", 1]}, '"tags[1]" must be a string'),
    "a widget that is no list": ({"widget": "hello"}, '"widget" must be an array'),
    "a base model that is no id": ({"base_model": "Tiny CLIP"}, '"base_model" with value "Tiny CLIP" is not valid.'),
    "a base model in a folder": ({"base_model": ["a/b", "../c"]}, '"base_model[1]" with value "../c" is not valid.'),
    "a kind of task that is no text": ({"pipeline_tag": ["a"]}, '"pipeline_tag" must be a string'),
    "a library that is no text": ({"library_name": 1}, '"library_name" must be a string'),
    "results without a model": ({"model-index": [{"results": []}]}, '"model-index[0].name" is required'),
    "results that are no list": ({"model-index": {"name": "a"}}, '"model-index" must be an array'),
    "a result without a task": (
        {"model-index": [{"name": "a", "results": [{"metrics": []}]}]},
        '"model-index[0].results[0].task.type" is required',
    ),
    "a metric without a value": (
        {"model-index": [{"name": "a", "results": [{"task": {"type": "b"}, "metrics": [{"type": "c"}]}]}]},
        '"model-index[0].results[0].metrics[0].value" is required',
    ),
}
ACCEPTED: dict[str, Any] = {
    "nothing": {},
    "other alone": {"license": "other"},
    "other with its name": {"license": "other", "license_name": "Mine 1.0", "license_link": "LICENSE.md"},
    "an address": {"license": "llama3", "license_link": "https://example.org/license?version=3"},
    "several licenses": {"license": ["mit", "apache-2.0"]},
    "languages": {"language": ["en", "zh", "fil", "code", "multilingual"]},
    "base models": {"base_model": ["gpt2", "me/base-1.0_x"]},
    "any tag": {"tags": ["a b", "ä/ö"], "pipeline_tag": "my-task", "library_name": "mine"},
    "a result": {
        "model-index": [
            {
                "name": "a",
                "results": [
                    {
                        "task": {"type": "b"},
                        "dataset": {"type": "c/d", "name": "e"},
                        "metrics": [{"type": "f", "value": 0}],
                    }
                ],
            }
        ]
    },
}


def card(metadata: Any) -> str:
    return f"---\n{yaml.safe_dump(metadata, allow_unicode=True)}---\n# Title\n"


@pytest.mark.parametrize("name", REFUSED)
def test_metadata_that_a_hub_refuses(name: str) -> None:
    metadata, sentence = REFUSED[name]
    assert any(error.startswith(sentence) for error in metadata_errors(metadata)), metadata_errors(metadata)


@pytest.mark.parametrize("name", ACCEPTED)
def test_metadata_that_a_hub_accepts(name: str) -> None:
    assert metadata_errors(ACCEPTED[name]) == []


def test_cards_of_datasets_have_licenses_and_languages_too() -> None:
    assert len(metadata_errors({"license": "mine", "language": "EN", "base_model": "a b"}, "dataset")) == 2
    assert metadata_errors({"license": "mine", "language": "EN"}, "space") == []


@pytest.mark.usefixtures("local_hub")
def test_the_check_of_a_card_has_the_sentences() -> None:
    with pytest.raises(ValueError, match="must be one of") as raised:
        ModelCard(card({"license": "Apache 2", "language": "EN"})).validate()
    assert "must only contain lowercase characters" in str(raised.value)
    ModelCard(card(ACCEPTED["a result"])).validate()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with serve_users(tmp_path_factory.mktemp("hub")) as served:
        yield served


@pytest.mark.parametrize("text", [card({"license": "Apache 2"}), "---\nlicense: [mit\n---\n", "---\n- a\n---\n"])
@pytest.mark.parametrize("query", ["", "?create_pr=1"])
def test_a_commit_with_such_a_card_is_refused(hub: LocalHub, text: str, query: str) -> None:
    api, repo = HfApi(hub.endpoint, token="hf_eve"), "eve/own"
    head = api.model_info(repo).sha
    entry = {"key": "file", "value": {"path": "README.md", "content": text}}
    status, answer = ask(hub, "POST", f"/api/models/{repo}/commit/main{query}", lines(HEADER, entry))
    assert status == 400
    assert "Your push was rejected during YAML metadata verification" in str(answer)
    assert api.model_info(repo).sha == head
    nested = CommitOperationAdd("docs/README.md", text.encode())
    api.create_commit(repo, [nested], commit_message="a file of another folder is no card")


@pytest.mark.usefixtures("local_hub")
def test_the_client_refuses_before_the_upload(repo_name: Names) -> None:
    api = HfApi()
    repo = api.create_repo(repo_name()).repo_id
    operations = [CommitOperationAdd("README.md", card({"license": "Apache 2"}).encode())]
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md") as raised:
        api.create_commit(repo, operations, commit_message="x")
    assert isinstance(raised.value.__cause__, BadRequestError)
