"""Columns as people have them: images as bytes, labels as words, and what the recipe casts."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import yaml
from PIL import Image

from hubmerge.errors import DatasetError, EvaluationError
from hubmerge.evaluation.casting import cast_preview, cast_rows
from hubmerge.evaluation.head_rows import find_head_rows
from hubmerge.evaluation.preview import DatasetPreview
from merge_recipes import DatasetReference
from tests.evaluation.test_image_classification import LABELS, prepare, save
from tests.evaluation.test_image_classification import rows_of as images_of

Command = Callable[..., tuple[int, str, str]]


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "png")
    return stream.getvalue()


def source(**cast: Any) -> DatasetReference:
    return DatasetReference.model_validate_json(json.dumps({"path": "me/x", "cast": cast}))


FORMS: dict[str, Callable[[bytes], Any]] = {
    "bytes": lambda content: content,
    "struct": lambda content: {"bytes": content, "path": "x.png"},
    "struct without paths": lambda content: {"bytes": content},
}


@pytest.mark.parametrize("form", FORMS)
def test_bytes_of_images_are_scored_like_images(form: str, tmp_path: Path) -> None:
    save(tmp_path / "base", "ViTForImageClassification")
    images = images_of(9)
    plain = datasets.Dataset.from_dict(
        {
            "image": [FORMS[form](png(image)) for image in images["image"]],
            "label": [LABELS[number] for number in images["label"]],
        }
    )
    assert not isinstance(plain.features["image"], datasets.Image)
    scorer, wanted = prepare(tmp_path / "base", tmp_path / "cache", images)
    _, found = prepare(tmp_path / "base", tmp_path / "other", plain)
    np.testing.assert_array_equal(found.pixels, wanted.pixels)
    assert found.score(scorer) == wanted.score(scorer)


def test_columns_are_cast() -> None:
    image = png(Image.new("RGB", (4, 4)))
    rows = datasets.Dataset.from_dict({"image": [image] * 3, "label": ["dog", "cat", "dog"], "score": ["1", "2", "3"]})
    found = cast_rows(rows, source(image="image", label=["dog", "cat"], score="float32"))
    assert found[0]["image"].size == (4, 4)
    assert (found["label"][:], found["score"][:]) == ([0, 1, 0], [1.0, 2.0, 3.0])
    preview = DatasetPreview(rows.features.to_dict(), 3, ["cat", "dog"])
    cast = cast_preview(preview, source(image="image", label=["dog", "cat"], score="float32"))
    assert cast.columns == found.features
    assert cast.labels == [0, 1]


@pytest.mark.parametrize(
    ("cast", "message"),
    [
        ({"label": ["dog", "bird"]}, "holds the label 'cat', which `cast` does not name"),
        ({"other": "int64"}, "names the column 'other'; the dataset has text, label"),
        ({"kind": ["y", "x"]}, "class 0 is 'y' in cast, but 'x' in the dataset, where 'y' is class 1"),
        ({"text": "image"}, "which cannot be cast to images"),
        ({"number": ["a", "b"]}, "which cannot be cast to classes"),
        ({"kind": "string"}, "`string` would write numbers"),
    ],
)
def test_what_cannot_be_cast_is_found_in_the_preview_and_in_the_rows(cast: dict[str, Any], message: str) -> None:
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.Value("string"),
            "number": datasets.Value("float32"),
            "kind": datasets.ClassLabel(names=["x", "y"]),
        }
    )
    values = {"text": ["a", "b"], "label": ["cat", "dog"], "number": [0.5, 1.5], "kind": [0, 1]}
    rows = datasets.Dataset.from_dict(values, features=features)
    with pytest.raises(DatasetError, match=message) as caught:
        cast_rows(rows, source(**cast))
    assert caught.value.key == "cast"
    with pytest.raises(DatasetError, match=message):
        cast_preview(DatasetPreview(features.to_dict(), 2, ["cat", "dog"]), source(**cast))


def test_values_of_another_type_are_named() -> None:
    rows = datasets.Dataset.from_dict({"text": ["a"], "label": ["many"]})
    with pytest.raises(DatasetError, match="column 'label' cannot be cast: "):
        cast_rows(rows, source(label="int64"))


def test_words_are_not_given_to_the_rows_of_a_head_without_names() -> None:
    names = sorted(map(str, range(11)))
    assert names[:3] == ["0", "1", "10"]
    with pytest.raises(EvaluationError, match="the labels are words, the head of pets has classes without names"):
        find_head_rows(None, 11, names, "x", owner="the head of pets", ordered=False)
    assert find_head_rows(None, 11, names, "x") == tuple(range(11))
    assert find_head_rows(["cat", "dog"], 2, ["dog", "cat"], "x", ordered=False) == (1, 0)


def test_the_recipe_casts_columns_and_plan_checks_them(hubmerge: Command, tmp_path: Path) -> None:
    for seed, name in enumerate(("base", "one")):
        save(tmp_path / name, "ViTForImageClassification", seed)
    images = images_of(6)
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict(
        {"picture": [png(image) for image in images["image"]], "label": [f"l{number}" for number in images["label"]]}
    ).to_parquet(tmp_path / "data" / "test.parquet")

    def write(**cast: Any) -> Path:
        dataset = {"path": str(tmp_path / "data"), "image": "picture", "cast": cast}
        task = {"name": "one", "kind": "image-classification", "dataset": dataset, "class_names": list(LABELS)}
        recipe = {
            "merge_method": "weight_average",
            "base_model": str(tmp_path / "base"),
            "models": [{"model": str(tmp_path / "one"), "name": "one"}],
            "evaluate": {"tasks": [task]},
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe, sort_keys=False))
        return path

    status, output, errors = hubmerge("plan", write(label=["l0", "l1"]))
    assert status == 3, output
    assert "tasks[0].dataset.cast: " in errors
    assert "holds the label 'l2', which `cast` does not name" in errors
    status, output, errors = hubmerge("plan", write(label="picture"))
    assert status == 2, output
    path = write(picture="image", label=["l0", "l1", "l2"])
    status, output, errors = hubmerge("run", path, "--out", tmp_path / "out")
    assert status == 0, errors
    report = json.loads((tmp_path / "out" / "hubmerge.json").read_text())
    assert (report["tasks"][0]["classes"], report["tasks"][0]["examples"]) == (3, 6)
