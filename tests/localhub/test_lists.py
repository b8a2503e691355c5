"""Tests of lists of repos, filters, pages and collections."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError

from hubmerge.localhub import LocalHub

CARD = """---
license: mit
library_name: transformers
pipeline_tag: zero-shot-image-classification
base_model: [ann/base]
base_model_relation: merge
tags: [merge, hubmerge]
datasets: [ann/digits]
---
# A model
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with LocalHub(tmp_path_factory.mktemp("hub")) as hub:
        api = HfApi(hub.endpoint, token=hub.token)
        for name in ("ann/clip-a", "ann/clip-b", "ann/other", "bob/clip-c"):
            api.create_repo(name)
        api.create_repo("ann/digits", repo_type="dataset")
        api.upload_file(path_or_fileobj=CARD.encode(), path_in_repo="README.md", repo_id="ann/clip-b")
        yield hub


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    return HfApi(hub.endpoint, token=hub.token)


def test_lists_are_filtered(api: HfApi) -> None:
    def ids(**query: object) -> list[str]:
        return [info.id for info in api.list_models(**query)]  # type: ignore[arg-type]

    assert ids() == ["bob/clip-c", "ann/other", "ann/clip-b", "ann/clip-a"]
    assert ids(author="ann", search="CLIP") == ["ann/clip-b", "ann/clip-a"]
    assert ids(search="b  ann CLIP") == ["ann/clip-b"]
    assert ids(sort="last_modified")[0] == "ann/clip-b"
    assert ids(filter="merge") == ["ann/clip-b"]
    assert ids(filter=["merge", "nothing"]) == []
    assert ids(filter="base_model:merge:ann/base") == ["ann/clip-b"]
    assert ids(pipeline_tag="zero-shot-image-classification") == ["ann/clip-b"]
    assert ids(trained_dataset="ann/digits") == ["ann/clip-b"]
    assert ids(gated=True) == []
    assert [info.id for info in api.list_datasets(author="ann")] == ["ann/digits"]
    assert list(api.list_spaces()) == []


def test_pages_have_the_address_of_the_next_page(api: HfApi, hub: LocalHub) -> None:
    from huggingface_hub.utils._pagination import paginate

    pages = paginate(f"{hub.endpoint}/api/models", params={"limit": 3, "search": "clip"}, headers={})
    assert [item["id"] for item in pages] == ["bob/clip-c", "ann/clip-b", "ann/clip-a"]
    pages = paginate(f"{hub.endpoint}/api/models", params={"limit": 1, "search": "clip"}, headers={})
    assert [item["id"] for item in pages] == ["bob/clip-c", "ann/clip-b", "ann/clip-a"]
    assert len(list(api.list_models(limit=2))) == 2


def test_a_description_has_tags_card_and_parameters(api: HfApi) -> None:
    info = api.model_info("ann/clip-b", files_metadata=True)
    assert info.pipeline_tag == "zero-shot-image-classification"
    assert info.card_data is not None
    assert info.card_data.base_model == ["ann/base"]
    assert info.library_name == "transformers"
    assert info.created_at is not None
    assert info.last_modified is not None
    assert info.created_at < info.last_modified
    readme = next(item for item in info.siblings or [] if item.rfilename == "README.md")
    assert (readme.size, readme.lfs) == (len(CARD), None)
    listed = next(iter(api.list_models(search="clip-b", full=True)))
    assert [item.rfilename for item in listed.siblings or []] == [".gitattributes", "README.md"]


def test_invalid_cards_are_refused(api: HfApi) -> None:
    with pytest.raises(ValueError, match="Invalid metadata"):
        api.upload_file(path_or_fileobj=b"---\nlicense: [mit\n---\n", path_in_repo="README.md", repo_id="ann/other")
    assert ModelCard(CARD).data.to_dict()["license"] == "mit"


def test_collections_are_created_changed_and_deleted(api: HfApi, hub: LocalHub) -> None:
    made = api.create_collection("Merged Models!", namespace="ann", description="All of them")
    assert made.slug.startswith("ann/merged-models-")
    assert api.create_collection("Merged Models!", namespace="ann", exists_ok=True).slug == made.slug
    with pytest.raises(HfHubHTTPError):
        api.create_collection("Merged Models!", namespace="ann")
    api.add_collection_item(made.slug, "ann/clip-a", "model", note="first")
    api.add_collection_item(made.slug, "ann/digits", "dataset")
    api.add_collection_item(made.slug, "ann/digits", "dataset", exists_ok=True)
    with pytest.raises(HfHubHTTPError):
        api.add_collection_item(made.slug, "ann/nothing", "model")
    found = api.get_collection(made.slug)
    assert [(item.item_id, item.item_type, item.note) for item in found.items] == [
        ("ann/clip-a", "model", "first"),
        ("ann/digits", "dataset", None),
    ]
    api.update_collection_item(made.slug, found.items[1].item_object_id, note="data", position=0)
    assert [item.note for item in api.get_collection(made.slug).items] == ["data", "first"]
    renamed = api.update_collection_metadata(made.slug, title="Merges", private=True)
    assert renamed.slug.startswith("ann/merges-")
    assert [item.slug for item in api.list_collections(owner="ann")] == [renamed.slug]
    assert [item.slug for item in api.list_collections(item="models/ann/clip-a")] == [renamed.slug]
    assert list(HfApi(hub.endpoint, token=False).list_collections()) == []
    with pytest.raises(HfHubHTTPError):
        HfApi(hub.endpoint, token=False).get_collection(renamed.slug)
    api.delete_collection_item(renamed.slug, found.items[0].item_object_id)
    assert [item.item_id for item in api.get_collection(made.slug).items] == ["ann/digits"]
    api.delete_collection(made.slug)
    api.delete_collection(made.slug, missing_ok=True)
    with pytest.raises(HfHubHTTPError):
        api.get_collection(made.slug)
