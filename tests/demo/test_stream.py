"""Tests of the written repos: they load without hubmerge, and are reused if complete."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import DatasetCard, ModelCard
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoProcessor,
    AutoTokenizer,
    CLIPModel,
    CLIPProcessor,
    CLIPVisionModel,
    pipeline,
)

from hubmerge.demo.make_stream import make_stream, make_tiny_repos
from hubmerge.demo.model import make_tokenizer, vision_tower
from hubmerge.demo.stream import DemoStream
from hubmerge.demo.tasks import TASKS
from hubmerge.demo.training import to_pixels
from tests.checks import every


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> DemoStream:
    return make_tiny_repos(tmp_path_factory.mktemp("stream"), tasks=("shapes", "digits"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_base_is_a_regular_clip_repo(stream: DemoStream) -> None:
    folder = stream.base.folder
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"} <= names
    assert {"tokenizer.json", "tokenizer_config.json"} <= names
    assert isinstance(AutoModel.from_pretrained(folder), CLIPModel)
    processor = AutoProcessor.from_pretrained(folder)
    assert isinstance(processor, CLIPProcessor)
    image, _ = stream.tasks[0].image("test", 0, seed=0)
    inputs = processor(text=["a drawing of a heart"], images=image, return_tensors="pt", padding=True)
    with torch.no_grad():
        output = CLIPModel.from_pretrained(folder)(**inputs)
    assert output.logits_per_image.shape == (1, 1)
    assert bool(torch.isfinite(output.logits_per_image).all())


def test_pipeline_loads_the_base(stream: DemoStream) -> None:
    task = stream.tasks[0]
    classifier = pipeline("zero-shot-image-classification", model=str(stream.base.folder))
    image, _ = task.image("test", 0, seed=0)
    answers = classifier(image, candidate_labels=list(task.class_names), hypothesis_template=task.prompt)
    assert {answer["label"] for answer in answers} == set(task.class_names)
    assert sum(answer["score"] for answer in answers) == pytest.approx(1, abs=1e-5)


def test_towers_are_vision_models_near_the_base(stream: DemoStream) -> None:
    base = vision_tower(CLIPModel.from_pretrained(stream.base.folder)).state_dict()
    first, second = (
        CLIPVisionModel.from_pretrained(stream.tower(name).folder).state_dict() for name in stream.settings.tasks
    )
    assert base.keys() == first.keys() == second.keys()
    for name, value in base.items():
        assert first[name].shape == value.shape
        assert not torch.equal(first[name], value)
        assert not torch.equal(first[name], second[name])
        assert float((first[name] - value).abs().max()) < 0.15
    size = AutoImageProcessor.from_pretrained(stream.tower("shapes").folder).crop_size
    assert (size["height"], size["width"]) == (24, 24)


def test_training_uses_the_values_of_the_image_processor(stream: DemoStream) -> None:
    processor = AutoImageProcessor.from_pretrained(stream.base.folder)
    images, _ = stream.tasks[0].images("train", 4, seed=0)
    given = processor(images=images, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(to_pixels(images), given, rtol=0, atol=1e-5)


@pytest.mark.parametrize("split", ["train", "test"])
def test_dataset_loads_with_its_class_names(stream: DemoStream, split: str, tmp_path: Path) -> None:
    import datasets

    task = stream.tasks[0]
    folder = str(stream.dataset(task.name).folder)
    table = datasets.load_dataset(folder, split=split, cache_dir=str(tmp_path))
    assert table.features["label"] == datasets.ClassLabel(names=list(task.class_names))
    assert table.features["image"] == datasets.Image()
    images, labels = task.images(split, len(table), seed=0)
    assert table["label"][:] == labels
    shown = [np.asarray(image) for image in table["image"][:]]
    assert every(np.array_equal(one, np.asarray(other)) for one, other in zip(shown, images, strict=True))
    assert isinstance(table[0]["image"], Image.Image)


def test_cards_have_license_base_model_and_dataset(stream: DemoStream) -> None:
    for repo in stream.repos():
        card = (DatasetCard if repo.kind == "dataset" else ModelCard).load(repo.folder / "README.md")
        assert card.data.license == "apache-2.0"
    tower = ModelCard.load(stream.tower("digits").folder / "README.md")
    assert tower.data.base_model == "hubmerge-demo/tiny-clip"
    assert tower.data.datasets == ["hubmerge-demo/digits"]
    assert "scikit-learn" in tower.content


def test_repos_have_the_names_of_the_stream(stream: DemoStream) -> None:
    assert [repo.repo for repo in stream.repos()] == [
        "hubmerge-demo/tiny-clip",
        "hubmerge-demo/tiny-clip_shapes",
        "hubmerge-demo/tiny-clip_digits",
        "hubmerge-demo/shapes",
        "hubmerge-demo/digits",
    ]


def test_every_word_of_every_prompt_is_one_token() -> None:
    prompts = [prompt for task in TASKS for prompt in task.prompts]
    tokenizer = make_tokenizer(prompts)
    for prompt in prompts:
        assert len(tokenizer(prompt)["input_ids"]) == len(prompt.split()) + 2
    unknown = tokenizer("Zebra quux")
    assert tokenizer.decode(unknown["input_ids"], skip_special_tokens=True) == "zebra quux"


def test_tokenizer_does_not_depend_on_order_or_saving(stream: DemoStream) -> None:
    prompts = [prompt for task in TASKS for prompt in task.prompts]
    forwards, backwards = make_tokenizer(prompts), make_tokenizer(prompts[::-1])
    read = AutoTokenizer.from_pretrained(stream.base.folder)
    assert forwards.get_vocab() == backwards.get_vocab() == read.get_vocab()
    assert forwards(prompts)["input_ids"] == backwards(prompts)["input_ids"] == read(prompts)["input_ids"]


def test_a_seed_determines_the_files(tmp_path: Path) -> None:
    one, two, other = (
        make_tiny_repos(tmp_path / name, tasks=1, seed=seed) for name, seed in (("one", 5), ("two", 5), ("other", 6))
    )
    assert contents(one.folder) == contents(two.folder)
    weights = (one.base.folder / "model.safetensors").read_bytes()
    assert weights != (other.base.folder / "model.safetensors").read_bytes()


def test_a_complete_stream_is_reused(tmp_path: Path) -> None:
    stream = make_tiny_repos(tmp_path, tasks=1)
    weights = stream.base.folder / "model.safetensors"
    written = weights.stat().st_mtime_ns
    make_tiny_repos(tmp_path, tasks=1)
    assert weights.stat().st_mtime_ns == written


@pytest.mark.parametrize("damage", ["no marker", "torn marker", "changed weights", "missing file", "other seed"])
def test_an_incomplete_stream_is_replaced(tmp_path: Path, damage: str) -> None:
    stream = make_tiny_repos(tmp_path, tasks=1)
    whole = contents(tmp_path)
    weights = stream.base.folder / "model.safetensors"
    marker = tmp_path / "complete.json"
    if damage == "no marker":
        marker.unlink()
    elif damage == "torn marker":
        marker.write_bytes(marker.read_bytes()[:40])
    elif damage == "changed weights":
        weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    elif damage == "missing file":
        (stream.tower("shapes").folder / "config.json").unlink()
    else:
        make_tiny_repos(tmp_path, tasks=1, seed=1)
        assert contents(tmp_path) != whole
    make_tiny_repos(tmp_path, tasks=1)
    assert contents(tmp_path) == whole
    assert json.loads(marker.read_text(encoding="utf-8"))["settings"]["seed"] == 0


def test_unknown_task_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    from hubmerge.errors import HubmergeError

    with pytest.raises(HubmergeError, match="no task 'dogs'"):
        make_stream(tmp_path / "stream", tasks=["dogs"])
    assert not (tmp_path / "stream").exists()
