"""Images scored by a model with one head: what transformers gives, for the merged model and for checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
import yaml
from huggingface_hub import HfApi
from PIL import Image

from hubmerge.checkpoints import open_checkpoint
from hubmerge.errors import EvaluationError
from hubmerge.evaluation import task_kind_named
from hubmerge.evaluation.base_files import BaseFiles, check_image_head
from merge_recipes import Task

KIND = task_kind_named("image-classification")
LABELS = ("cat", "dog", "bus")
NAMES = {"id2label": dict(enumerate(LABELS)), "label2id": {name: row for row, name in enumerate(LABELS)}}
SMALL: dict[str, dict[str, Any]] = {
    "ViTForImageClassification": {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 16, "patch_size": 8,
    },
    "Dinov2ForImageClassification": {
        "hidden_size": 16, "mlp_ratio": 2, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16,
        "patch_size": 8,
    },
    "SwinForImageClassification": {
        "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2, "image_size": 16, "patch_size": 4,
    },
    "ConvNextForImageClassification": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
}  # fmt: skip


def save(folder: Path, kind: str, seed: int = 0) -> Any:
    model_class = getattr(transformers, kind)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(model_class.config_class(**{**SMALL[kind], **NAMES})).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    processor = transformers.ViTImageProcessorPil(size={"height": 16, "width": 16})
    processor.save_pretrained(folder)
    return model


def rows_of(count: int = 20, names: tuple[str, ...] = LABELS) -> datasets.Dataset:
    generator = np.random.default_rng(0)
    images = [Image.fromarray(generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)) for _ in range(count)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))})
    labels = [number % len(names) for number in range(count)]
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


def task(**changes: Any) -> Task:
    return Task.model_validate_json(
        json.dumps({"name": "x", "kind": KIND.name, "dataset": {"path": "me/images"}, **changes})
    )


def opened(folder: Path) -> Any:
    return open_checkpoint(folder, folder.name)


def prepare(folder: Path, cache: Path, rows: datasets.Dataset | None = None, **changes: Any) -> tuple[Any, Any]:
    scorer = KIND.open_scorer(folder, opened(folder), identity="0" * 40)
    rows = rows_of() if rows is None else rows
    return scorer, KIND.prepare(task(**changes), rows, scorer, cache, dataset_commit=None, batch_size=7)


@torch.no_grad()
def expected(model: Any, folder: Path, rows: datasets.Dataset) -> np.ndarray:
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    found = [model(**processor(images=image, return_tensors="pt")).logits[0] for image in rows["image"]]
    return torch.stack(found).numpy()


@pytest.mark.parametrize("kind", SMALL)
def test_it_gives_what_transformers_gives(kind: str, tmp_path: Path) -> None:
    model, other = save(tmp_path / "base", kind), save(tmp_path / "other", kind, seed=1)
    scorer, prepared = prepare(tmp_path / "base", tmp_path / "cache")
    assert (prepared.examples, prepared.class_names) == (20, LABELS)
    wanted = expected(model, tmp_path / "base", rows_of())
    np.testing.assert_allclose(prepared.logits(scorer), wanted, rtol=1e-3, atol=1e-4)
    truth = np.arange(20) % 3
    assert prepared.score(scorer)["accuracy"] == pytest.approx(float((wanted.argmax(1) == truth).mean()))
    scorer.load(opened(tmp_path / "other"))
    wanted = expected(other, tmp_path / "base", rows_of())
    np.testing.assert_allclose(prepared.logits(scorer), wanted, rtol=1e-3, atol=1e-4)
    scorer.load_base()
    assert scorer.label == "base"


def test_a_task_with_some_of_the_classes(tmp_path: Path) -> None:
    save(tmp_path / "base", "ViTForImageClassification")
    scorer, prepared = prepare(tmp_path / "base", tmp_path / "cache", rows_of(8, ("bus", "cat")))
    assert prepared.head_rows == (2, 0)
    assert prepared.logits(scorer).shape == (8, 2)


@pytest.mark.parametrize(
    ("changes", "names", "message"),
    [
        ({"prompts": ["a {}"]}, LABELS, "prompts"),
        ({}, ("cat", "tree"), "tree"),
        ({"dataset": {"path": "me/images", "image": "picture"}}, LABELS, "picture"),
    ],
)
def test_a_task_that_does_not_fit(
    changes: dict[str, Any], names: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    save(tmp_path / "base", "ViTForImageClassification")
    with pytest.raises(EvaluationError, match=message):
        prepare(tmp_path / "base", tmp_path / "cache", rows_of(4, names), **changes)


def test_a_base_model_without_a_head_is_told_before_the_merge() -> None:
    check_image_head(BaseFiles("base", {"architectures": ["ViTForImageClassification"]}, frozenset()))
    with pytest.raises(EvaluationError, match="ViTModel, image classification needs"):
        check_image_head(BaseFiles("base", {"architectures": ["ViTModel"]}, frozenset()))
    with pytest.raises(EvaluationError) as caught:
        check_image_head(BaseFiles("base", {"architectures": ["CLIPModel"], "model_type": "clip"}, frozenset()))
    assert "zero-shot-image-classification" in str(caught.value.hint)


def test_a_stream_is_scored_on_the_hub(
    hubmerge: Callable[..., tuple[int, str, str]], tmp_path: Path, repo_name: Callable[..., str]
) -> None:
    api, kind = HfApi(), "ViTForImageClassification"
    repos = {}
    for seed, name in enumerate(("base", "cats", "dogs")):
        save(tmp_path / name, kind, seed=seed)
        repos[name] = api.create_repo(repo_name(name)).repo_id
        api.upload_folder(folder_path=tmp_path / name, repo_id=repos[name])
    data = repo_name("images")
    rows_of().push_to_hub(data, split="test")
    target = repo_name("merged")
    tasks = [{"name": "cats", "kind": KIND.name, "dataset": {"path": data}}]
    recipe = {
        "merge_method": "wudi",
        "base_model": repos["base"],
        "models": [{"model": repos[name], "name": name} for name in ("cats", "dogs")],
        "evaluate": {"tasks": tasks},
        "publish": {"repo": target, "license": "mit"},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    status, output, errors = hubmerge("run", path)
    assert status == 0, errors
    assert "average accuracy" in output
    card = api.model_info(target).card_data
    assert card is not None
    assert card.pipeline_tag == KIND.name
    status, output, errors = hubmerge("verify", target)
    assert status == 0, output + errors
