"""Heads of models whose configs name their classes elsewhere than in `id2label`, or do not name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hubmerge.checkpoints import Selection
from hubmerge.checkpoints.planning.class_names import class_count, class_names, distinct_class_names, head_modules
from tests.checkpoints.files import random_tensors, selection_in, with_prefix, write_folder
from tests.checkpoints.planning.test_heads import planned, refused

TEN = 10
CIFAR = [
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
]
EUROSAT = [
    *("annual crop", "forest", "vegetation", "highway", "industrial"),
    *("pasture", "permanent crop", "residential", "river", "sea"),
]
BODY = {"patch_embed.proj.weight": (8, 3, 2, 2), "blocks.0.attn.qkv.weight": (24, 8), "norm.weight": (8,)}


def timm(classifier: Any = "head", **changes: Any) -> dict[str, Any]:
    """Return a config.json as timm writes it."""
    cfg = {"num_classes": TEN, "classifier": classifier, "first_conv": "patch_embed.proj"}
    return {"architecture": "vit_tiny_patch4_8", "num_classes": TEN, "pretrained_cfg": cfg, **changes}


def written(folder: Path, config: dict[str, Any], *heads: str, seed: int = 0, prefix: str = "") -> Path:
    shapes = {**BODY, **{f"{head}.weight": (TEN, 8) for head in heads}, **{f"{head}.bias": (TEN,) for head in heads}}
    return write_folder(folder, with_prefix(prefix, random_tensors(shapes, seed)), config)


@pytest.mark.parametrize(
    "heads",
    [
        ("head",),
        ("head.fc",),
        ("fc",),
        ("classifier",),
        ("last_linear",),
        ("head", "head_dist"),
        ("head.fc.fc2",),
        ("heads.0",),
    ],
)
@pytest.mark.parametrize("prefix", ["", "timm_model."])
def test_heads_of_timm_for_other_classes_of_one_number_are_refused(
    tmp_path: Path, heads: tuple[str, ...], prefix: str
) -> None:
    classifier = heads[0] if len(heads) == 1 else list(heads)
    base = written(tmp_path / "base", timm(classifier, label_names=CIFAR), *heads, prefix=prefix)
    other = written(tmp_path / "other", timm(classifier, label_names=EUROSAT), *heads, seed=1, prefix=prefix)
    error = refused(base, other)
    assert "for annual crop, forest" in error.message
    assert "is for airplane, automobile" in error.message
    kept = {tensor.name for tensor in planned(base, other, selection_in(error)).kept}
    assert kept == {f"{prefix}{head}.{part}" for head in heads for part in ("weight", "bias")}
    same = written(tmp_path / "same", timm(classifier, label_names=CIFAR), *heads, seed=2, prefix=prefix)
    assert not planned(base, same).kept


@pytest.mark.parametrize(
    "config",
    [
        timm(),
        timm(label_names=[str(number) for number in range(TEN)]),
        {"num_classes": TEN},
        {"model_type": "of somebody", "num_labels": TEN},
        {"model_type": "of somebody", "id2label": {str(number): f"LABEL_{number}" for number in range(TEN)}},
        {"model_type": "of somebody"},
        {},
    ],
)
def test_heads_of_unnamed_classes_are_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    base, other = (written(tmp_path / name, config, "head", seed=seed) for seed, name in enumerate(("base", "other")))
    error = refused(base, other)
    assert error.context.tensor == "head.weight"
    assert "classes that its config.json does not name, and neither does that of the base model base" in error.message
    assert 'exclude: ["head.*"]' in (error.hint or "")
    assert {tensor.name for tensor in planned(base, other, Selection(include=("*",))).merged} >= {"head.weight"}


def test_a_norm_inside_the_head_of_timm_is_merged(tmp_path: Path) -> None:
    shapes = {**BODY, "head.norm.weight": (8,), "head.fc.weight": (TEN, 8)}
    folders = [
        write_folder(tmp_path / name, random_tensors(shapes, seed), timm("head.fc", label_names=names))
        for seed, (name, names) in enumerate((("base", CIFAR), ("other", EUROSAT)))
    ]
    error = refused(folders[0], folders[1])
    assert error.context.tensor == "head.fc.weight"
    plan = planned(folders[0], folders[1], Selection(exclude=("head.fc.*",)))
    assert {tensor.name for tensor in plan.kept} == {"head.fc.weight"}


def test_a_head_for_tokens_is_merged(tmp_path: Path) -> None:
    tensors = random_tensors({**BODY, "head.weight": (12, 8)})
    config = {"model_type": "of somebody", "vocab_size": 12}
    base, other = (write_folder(tmp_path / name, tensors, config) for name in ("base", "other"))
    assert not planned(base, other).kept


LABELS = {"0": "cat", "1": "dog", "10": "owl"}


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"id2label": LABELS}, ("cat", "dog", "owl")),
        ({"label_names": ["cat", "dog"]}, ("cat", "dog")),
        ({"label_names": LABELS}, ("cat", "dog", "owl")),
        ({"pretrained_cfg": {"label_names": ["cat", "dog"]}}, ("cat", "dog")),
        ({"label2id": {"dog": 1, "cat": 0}}, ("cat", "dog")),
        ({"label_descriptions": {"n01": "a cat", "n02": "a dog"}}, ("n01", "n02")),
        ({"class_names": ["cat"]}, ("cat",)),
        ({"id2label": {0: "LABEL_0", 1: "LABEL_1"}, "label_names": ["cat", "dog"]}, None),
        ({"labels": 3, "classes": "cat", "label_names": [], "id2label": {"a": "b"}}, None),
        ({"label_names": [["cat"], ["dog"]]}, None),
        ({}, None),
    ],
)
def test_names_of_classes(config: dict[str, Any], names: tuple[str, ...] | None) -> None:
    assert class_names(config) == names


@pytest.mark.parametrize(
    "names",
    [["0", "1", "2"], ["1", "2", "3"], ["class_0", "class_1"], ["Class 1", "Class 2"], ["label-0"], ["", "", ""]],
)
def test_names_that_only_count_are_no_names(names: list[str]) -> None:
    assert distinct_class_names({"label_names": names}) is None
    assert class_count({"label_names": names}) == len(names)


def test_names_of_another_number_of_classes_are_no_names() -> None:
    """A fine-tune may keep the names of the model that it was made from."""
    config = {"num_classes": 3, "pretrained_cfg": {"label_names": ["cat", "dog"], "num_classes": 2}}
    assert class_names(config) == ("cat", "dog")
    assert distinct_class_names(config) is None
    assert class_count(config) == 3


def test_names_with_numbers_are_names() -> None:
    assert distinct_class_names({"label_names": ["1 star", "2 stars"]}) == ("1 star", "2 stars")
    assert distinct_class_names({"label_names": ["3", "7"]}) == ("3", "7")


def test_two_default_names_are_no_head(tmp_path: Path) -> None:
    """Older configs of transformers have them for every model."""
    config = {"model_type": "of somebody", "id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
    assert class_count(config) is None
    tensors = random_tensors({**BODY, "pair.weight": (2, 8), "cls.seq_relationship.weight": (2, 8)})
    base, other = (write_folder(tmp_path / name, tensors, config) for name in ("base", "other"))
    assert not planned(base, other).kept


def test_number_of_classes_and_modules_of_heads() -> None:
    assert class_count({"pretrained_cfg": {"num_classes": 7}}) == 7
    assert class_count({"num_classes": 0}) is None
    assert class_count({"num_labels": True}) is None
    assert head_modules(timm(["head", "head_dist"])) == ("head", "head_dist")
    assert head_modules(timm(None)) == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_heads_are_found_in_every_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {name: value.to(dtype) for name, value in random_tensors({**BODY, "fc.weight": (TEN, 8)}).items()}
    base = write_folder(tmp_path / "base", tensors, timm("fc", label_names=CIFAR))
    assert refused(base, write_folder(tmp_path / "other", tensors, timm("fc"))).context.tensor == "fc.weight"
