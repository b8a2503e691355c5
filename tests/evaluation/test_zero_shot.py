from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPProcessor, pipeline

from hubmerge.checkpoints import AdaptedCheckpoint, open_adapter, open_checkpoint
from hubmerge.errors import EvaluationError
from hubmerge.evaluation import METRIC_NAMES, TASK_KIND_NAMES, task_kind_named
from hubmerge.evaluation.metrics import CLASS_METRIC_NAMES, SHIPPED_METRIC_NAMES
from hubmerge.evaluation.pixels import Preprocessor
from hubmerge.evaluation.sampling import choose_rows
from hubmerge.evaluation.task_keys import KIND_METRICS
from tests.evaluation.small_task import CLASS_NAMES, PROMPTS, make_task

KIND = task_kind_named("zero-shot-image-classification")


def prepare(
    scorer: Any, rows: Any, cache: Path, task: Any = None, commit: str | None = "d" * 40, **options: Any
) -> Any:
    return KIND.prepare(task or make_task(), rows, scorer, cache, dataset_commit=commit, **options)


@torch.no_grad()
def reference_logits(folder: Path, images: Any, prompt: str) -> np.ndarray:
    """Return the logits of transformers' own CLIPModel, image by image."""
    model = CLIPModel.from_pretrained(folder).eval()
    processor = CLIPProcessor.from_pretrained(folder, backend="pil")
    texts = [prompt.replace("{}", name) for name in CLASS_NAMES]
    logits = [
        model(**processor(text=texts, images=image, return_tensors="pt", padding=True)).logits_per_image[0]
        for image in images
    ]
    return torch.stack(logits).numpy()


@pytest.mark.parametrize("source", ["base", "merged", "tower"])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_logits_are_those_of_transformers(
    source: str, batch_size: int, scorer: Any, clip_folders: dict[str, Path], rows: Any, images: Any, tmp_path: Path
) -> None:
    prepared = prepare(scorer, rows, tmp_path, make_task(prompts=(PROMPTS[0],)), batch_size=batch_size)
    scorer.load(open_checkpoint(clip_folders[source]))
    whole = clip_folders["base" if source == "base" else "merged"]
    np.testing.assert_allclose(
        prepared.logits(scorer), reference_logits(whole, images, PROMPTS[0]), rtol=1e-5, atol=1e-5
    )


def test_labels_are_those_of_the_pipeline(
    scorer: Any, clip_folders: dict[str, Path], rows: Any, images: Any, tmp_path: Path
) -> None:
    prepared = prepare(scorer, rows, tmp_path, make_task(prompts=(PROMPTS[1],)))
    scorer.load(open_checkpoint(clip_folders["merged"]))
    found = [CLASS_NAMES[number] for number in prepared.logits(scorer).argmax(axis=1)]
    folder = clip_folders["merged"]
    classify = pipeline(
        "zero-shot-image-classification", model=str(folder), image_processor=Preprocessor(folder).processor
    )
    answers = classify([image.convert("RGB") for image in images], CLASS_NAMES, hypothesis_template=PROMPTS[1])
    assert found == [answer[0]["label"] for answer in answers]
    assert len(set(found)) > 1


@torch.no_grad()
def test_head_is_the_mean_over_prompts_made_unit(
    scorer: Any, clip_folders: dict[str, Path], rows: Any, tmp_path: Path
) -> None:
    model = CLIPModel.from_pretrained(clip_folders["base"]).double().eval()
    processor = CLIPProcessor.from_pretrained(clip_folders["base"], backend="pil")
    expected = []
    for name in CLASS_NAMES:
        units = []
        for prompt in PROMPTS:
            tokens = processor(text=[prompt.replace("{}", name)], return_tensors="pt")
            embedding = model.text_projection(model.text_model(**tokens).pooler_output)[0]
            units.append(embedding / embedding.norm())
        mean = torch.stack(units).mean(dim=0)
        expected.append(mean / mean.norm())
    head = prepare(scorer, rows, tmp_path).head
    torch.testing.assert_close(head.double(), torch.stack(expected), rtol=0, atol=1e-6)


def test_scores_are_the_metrics_of_the_logits(scorer: Any, rows: Any, tmp_path: Path) -> None:
    prepared = prepare(scorer, rows, tmp_path, make_task(metrics=CLASS_METRIC_NAMES))
    scores = prepared.score(scorer)
    predicted = prepared.logits(scorer).argmax(axis=1)
    assert set(scores) == set(CLASS_METRIC_NAMES)
    assert scores["accuracy"] == pytest.approx((predicted == prepared.labels).mean())
    assert np.sum(scores["confusion"]) == prepared.examples == len(rows)
    assert scores["top-5"] >= scores["accuracy"]
    json.dumps(scores)


def test_the_second_preparation_reads_the_cache_and_scores_the_same(scorer: Any, rows: Any, tmp_path: Path) -> None:
    first = prepare(scorer, rows, tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    assert len(files) == 2
    again = prepare(scorer, rows, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")} == files
    np.testing.assert_array_equal(first.logits(scorer), again.logits(scorer))


def test_without_a_commit_images_are_never_taken_from_the_cache(
    scorer: Any, rows: Any, images: Any, tmp_path: Path
) -> None:
    first = prepare(scorer, rows, tmp_path, commit=None)
    again = prepare(scorer, rows.select(range(len(rows) - 1, -1, -1)), tmp_path, commit=None)
    np.testing.assert_array_equal(first.pixels[0], again.pixels[-1])


def test_a_cap_takes_a_balanced_sample_and_all_classes(scorer: Any, rows: Any, tmp_path: Path) -> None:
    whole = prepare(scorer, rows, tmp_path)
    first = prepare(scorer, rows, tmp_path, make_task(dataset={"max_examples": 4, "sample": "first"}))
    assert (first.examples, first.class_names) == (4, tuple(CLASS_NAMES))
    np.testing.assert_allclose(first.logits(scorer), whole.logits(scorer)[:4], rtol=1e-5, atol=1e-5)
    for seed in (0, 1):
        source = {"max_examples": 4, "seed": seed}
        capped = prepare(scorer, rows, tmp_path, make_task(dataset=source))
        chosen = choose_rows(len(rows), make_task(dataset=source).dataset, whole.labels)
        assert len(set(capped.labels)) == 4
        np.testing.assert_array_equal(capped.labels, whole.labels[chosen])
        np.testing.assert_allclose(capped.logits(scorer), whole.logits(scorer)[chosen], rtol=1e-5, atol=1e-5)


def test_swapping_back_gives_the_base_again(
    scorer: Any, clip_folders: dict[str, Path], rows: Any, tmp_path: Path
) -> None:
    prepared = prepare(scorer, rows, tmp_path)
    before = prepared.logits(scorer)
    scorer.load(open_checkpoint(clip_folders["tower"]))
    assert np.abs(prepared.logits(scorer) - before).max() > 0.1
    scorer.load_base()
    np.testing.assert_array_equal(prepared.logits(scorer), before)


def changed(folder: Path, target: Path, change: Any) -> Any:
    """Return a copy of a model folder with its tensors changed."""
    shutil.copytree(folder, target)
    tensors = load_file(target / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return open_checkpoint(target, "me/odd@main")


def drop(name: str) -> Any:
    return lambda tensors: tensors.pop(name)


def put(name: str, value: Any) -> Any:
    return lambda tensors: tensors.__setitem__(name, value)


@pytest.mark.parametrize(
    ("source", "change", "message"),
    [
        ("merged", drop("vision_model.post_layernorm.bias"), "tensor 'vision_model.post_layernorm.bias' .* is missing"),
        ("tower", drop("post_layernorm.bias"), "tensor 'post_layernorm.bias' .* is missing"),
        ("merged", put("vision_model.post_layernorm.bias", torch.zeros(3)), r"has the shape \(3,\), expected \(128,\)"),
        ("merged", put("vision_model.encoder.layers.4.x", torch.zeros(1)), "is not in the base model's vision tower"),
        ("merged", put("visual_projection.weight", torch.zeros(64, 128)), "'visual_projection.weight' differs"),
        ("merged", put("text_model.final_layer_norm.bias", torch.ones(64)), "final_layer_norm.bias' differs"),
    ],
)
def test_weights_that_do_not_belong_are_refused(
    source: str, change: Any, message: str, scorer: Any, clip_folders: dict[str, Path], tmp_path: Path
) -> None:
    weights = changed(clip_folders[source], tmp_path / "odd", change)
    with pytest.raises(EvaluationError, match=message) as caught:
        scorer.load(weights)
    assert str(caught.value).startswith("me/odd@main: ")
    assert repr(caught.value.context.tensor) in caught.value.message


def test_a_tower_can_be_looked_at_through_the_base_text_tower(
    scorer: Any, clip_folders: dict[str, Path], rows: Any, tmp_path: Path
) -> None:
    prepared = prepare(scorer, rows, tmp_path)
    scorer.load(open_checkpoint(clip_folders["merged"]))
    expected = prepared.logits(scorer)
    change = put("text_model.final_layer_norm.bias", torch.ones(64))
    scorer.load(changed(clip_folders["merged"], tmp_path / "odd", change), check_frozen=False)
    np.testing.assert_array_equal(prepared.logits(scorer), expected)


def test_half_precision_files_agree_with_the_base_in_their_own_dtype(
    scorer: Any, clip_folders: dict[str, Path], tmp_path: Path
) -> None:
    def halve(tensors: Any) -> None:
        tensors.update({name: value.to(torch.bfloat16) for name, value in tensors.items()})

    scorer.load(changed(clip_folders["merged"], tmp_path / "half", halve))
    assert scorer.label == "me/odd@main"


def test_buffers_of_older_files_are_passed_over(scorer: Any, clip_folders: dict[str, Path], tmp_path: Path) -> None:
    change = put("vision_model.embeddings.position_ids", torch.arange(10))
    scorer.load(changed(clip_folders["merged"], tmp_path / "old", change))
    assert scorer.label == "me/odd@main"


def test_values_that_are_not_finite_are_told(
    scorer: Any, clip_folders: dict[str, Path], rows: Any, tmp_path: Path
) -> None:
    change = put("vision_model.post_layernorm.bias", torch.full((128,), float("nan")))
    prepared = prepare(scorer, rows, tmp_path)
    scorer.load(changed(clip_folders["merged"], tmp_path / "nan", change))
    with pytest.raises(EvaluationError, match=r"me/odd@main: .*not finite"):
        prepared.score(scorer)


def test_the_base_must_be_a_whole_clip_model(clip_folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="of type 'clip_vision_model'"):
        KIND.open_scorer(clip_folders["tower"], open_checkpoint(clip_folders["tower"]), identity="x")
    weights = changed(clip_folders["base"], tmp_path / "torn", drop("text_projection.weight"))
    with pytest.raises(EvaluationError, match=r"lacks the tensor 'text_projection.weight'") as caught:
        KIND.open_scorer(tmp_path / "torn", weights, identity="x")
    assert caught.value.context.tensor == "text_projection.weight"


def test_a_prompt_that_is_too_long(scorer: Any, rows: Any, tmp_path: Path) -> None:
    task = make_task(prompts=("cat " * 40 + "{}",))
    with pytest.raises(EvaluationError, match="longer than the 32 tokens of the text tower"):
        prepare(scorer, rows, tmp_path, task)


def test_empty_splits_and_single_classes_are_refused(scorer: Any, rows: Any, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="task things, me/things, split test: no examples") as caught:
        prepare(scorer, rows.select([]), tmp_path)
    assert caught.value.context.repo == "me/things"
    assert caught.value.context.file is None
    task = make_task(dataset={"path": "./things"})
    with pytest.raises(EvaluationError, match="no examples") as caught:
        prepare(scorer, rows.select([]), tmp_path, task)
    assert caught.value.context.repo is None
    assert caught.value.context.file == "./things"
    task = make_task(class_names=("cat",), dataset={"label": "number"})
    with pytest.raises(EvaluationError, match="1 class, expected at least 2"):
        prepare(scorer, rows.add_column("number", [0] * len(rows)), tmp_path, task)


def test_kinds_have_names_of_their_own() -> None:
    assert [task_kind_named(name).name for name in TASK_KIND_NAMES] == list(TASK_KIND_NAMES)
    of_kinds = tuple(name for names in KIND_METRICS.values() for name in names)
    assert (*SHIPPED_METRIC_NAMES, *of_kinds) == METRIC_NAMES
    assert set(TASK_KIND_NAMES) >= KIND_METRICS.keys()
    with pytest.raises(EvaluationError, match="unknown task kind 'coloring'"):
        task_kind_named("coloring")


def test_a_base_model_with_an_adapter_is_scored_with_its_changes(clip_folders: dict[str, Path], tmp_path: Path) -> None:
    stored = load_file(clip_folders["base"] / "model.safetensors")
    names = [f"{tower}.encoder.layers.0.mlp.fc1" for tower in ("vision_model", "text_model")]
    change: dict[str, torch.Tensor] = {}
    for name in names:
        rows, columns = stored[f"{name}.weight"].shape
        change[f"base_model.model.{name}.lora_A.weight"] = torch.ones(2, columns)
        change[f"base_model.model.{name}.lora_B.weight"] = torch.ones(rows, 2)
    save_file(change, tmp_path / "adapter_model.safetensors")
    keys = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["fc1"], "bias": "none"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(keys), encoding="utf-8")
    base = AdaptedCheckpoint(open_checkpoint(clip_folders["base"], "base"), open_adapter(tmp_path, "adapter"))
    state = KIND.open_scorer(clip_folders["base"], base, identity="base+adapter")._model.state_dict()
    for name in names:
        assert torch.allclose(state[f"{name}.weight"], stored[f"{name}.weight"] + 2.0)
