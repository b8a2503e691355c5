from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import PIL.Image
import pytest
import torch

from hubmerge.errors import EvaluationError, MachineError
from hubmerge.evaluation.pixels import CHUNK_IMAGES, Preprocessor, cached_pixels


@pytest.fixture
def preprocessor(clip_folders: dict[str, Path]) -> Preprocessor:
    return Preprocessor(clip_folders["base"])


def test_both_halves_together_are_the_processor(preprocessor: Preprocessor, images: Any) -> None:
    for image in images:
        whole = preprocessor.processor(images=image, return_tensors="pt")["pixel_values"]
        halves = preprocessor.to_input(preprocessor.to_pixels(image)[None], torch.device("cpu"))
        assert halves.dtype == torch.float32
        torch.testing.assert_close(halves, whole, rtol=0, atol=1e-6)


def test_the_pil_variant_is_used(preprocessor: Preprocessor) -> None:
    assert preprocessor.processor.backend == "pil"


def test_pixels_are_kept_and_not_made_twice(preprocessor: Preprocessor, rows: Any, images: Any, tmp_path: Path) -> None:
    first = cached_pixels(rows, "image", preprocessor, "me", tmp_path, "task x")
    assert first.dtype == np.uint8
    assert first.shape == (len(images), 3, 24, 24)
    assert isinstance(first, np.memmap)
    np.testing.assert_array_equal(first[5], preprocessor.to_pixels(images[5]))
    (file,) = (tmp_path / "pixels").glob("*.npy")
    made = file.stat().st_mtime_ns
    again = cached_pixels(rows, "image", preprocessor, "me", tmp_path, "task x")
    np.testing.assert_array_equal(first, again)
    assert file.stat().st_mtime_ns == made


def test_another_identity_or_setting_makes_another_file(preprocessor: Preprocessor, rows: Any, tmp_path: Path) -> None:
    cached_pixels(rows, "image", preprocessor, "me", tmp_path, "task x")
    cached_pixels(rows, "image", preprocessor, "you", tmp_path, "task x")
    preprocessor.processor.crop_size = {"height": 16, "width": 16}
    smaller = cached_pixels(rows, "image", preprocessor, "me", tmp_path, "task x")
    assert smaller.shape[2:] == (16, 16)
    assert len(list((tmp_path / "pixels").glob("*.npy"))) == 3


def test_order_is_kept_over_chunks(preprocessor: Preprocessor, tmp_path: Path) -> None:
    count = CHUNK_IMAGES + 7
    grey = [np.full((24, 24, 3), number, dtype=np.uint8) for number in range(count)]
    rows = datasets.Dataset.from_dict({"image": grey}, features=datasets.Features({"image": datasets.Image()}))
    pixels = cached_pixels(rows, "image", preprocessor, "me", tmp_path, "task x")
    assert pixels[:, 0, 0, 0].tolist() == list(range(count))


def stored(values: Any) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"image": values}, features=datasets.Features({"image": datasets.Image()}))


def test_a_broken_image_is_named_and_nothing_is_left_behind(
    preprocessor: Preprocessor, rows: Any, images: Any, tmp_path: Path
) -> None:
    good = rows.cast_column("image", datasets.Image(decode=False))[0]["image"]
    broken = stored([good, {"bytes": b"no image at all", "path": None}])
    with pytest.raises(EvaluationError, match="task x: row 1: the image cannot be decoded: no format of images"):
        cached_pixels(broken, "image", preprocessor, "me", tmp_path, "task x")
    assert list((tmp_path / "pixels").iterdir()) == []


def file_of(values: np.ndarray, kind: str = "TIFF") -> dict[str, Any]:
    file = io.BytesIO()
    PIL.Image.fromarray(values).save(file, kind)
    return {"bytes": file.getvalue(), "path": None}


def test_images_of_more_bits_are_scaled_or_refused(preprocessor: Preprocessor, tmp_path: Path) -> None:
    eight = np.arange(24 * 24, dtype=np.uint32).reshape(24, 24) % 256
    plain = eight.astype(np.uint8)
    same = [
        file_of(plain, "PNG"),
        file_of((eight * 257).astype(np.uint16), "PNG"),
        file_of((eight * 257).astype(np.uint16)),
        file_of(eight.astype(np.int32)),
        file_of(eight.astype(np.float32)),
    ]
    pixels = cached_pixels(stored(same), "image", preprocessor, "me", tmp_path, "task x")
    assert len(np.unique(pixels[0])) > 50
    for other in pixels[1:]:
        np.testing.assert_array_equal(other, pixels[0])
    for values in (eight.astype(np.float32) / 255, (eight * 257).astype(np.int32), eight.astype(np.float32) - 5):
        with pytest.raises(EvaluationError, match="row 0: the image has values of 32 bits from"):
            cached_pixels(stored([file_of(values)]), "image", preprocessor, "you", tmp_path, "task x")


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((9000, 9000), "9000 x 9000 pixels: expected at most 64 million"),
        ((1, 2000), "expected sides that differ by a factor of at most 100"),
    ],
)
def test_an_image_that_unpacks_to_gigabytes_is_not_decoded(
    preprocessor: Preprocessor, tmp_path: Path, size: tuple[int, int], message: str
) -> None:
    file = tmp_path / "large.png"
    PIL.Image.new("1", size).save(file)
    assert file.stat().st_size < 20_000
    for value in ({"bytes": file.read_bytes(), "path": None}, {"bytes": None, "path": str(file)}):
        with pytest.raises(EvaluationError, match=f"task x: row 0: the image has .*{message}"):
            cached_pixels(stored([value]), "image", preprocessor, "me", tmp_path, "task x")


def test_a_processor_that_asks_for_giant_images(clip_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(next(iter(clip_folders.values())), folder)
    config = folder / "preprocessor_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "size": {"shortest_edge": 100_000}}))
    with pytest.raises(EvaluationError, match="size asks for images with shortest_edge 100000: expected at most 4096"):
        Preprocessor(folder)


@pytest.mark.parametrize("path", ["https://example.invalid/cat.png", "gone/cat.png"])
def test_an_image_that_is_only_an_address_is_not_fetched(preprocessor: Preprocessor, path: Any, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"row 0: the dataset contains only the address"):
        cached_pixels(stored([{"bytes": None, "path": path}]), "image", preprocessor, "me", tmp_path, "task x")


def test_a_row_without_an_image(preprocessor: Preprocessor, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="row 0 has no image"):
        cached_pixels(stored([None]), "image", preprocessor, "me", tmp_path, "task x")


def test_images_must_come_out_in_one_size(preprocessor: Preprocessor, rows: Any, tmp_path: Path) -> None:
    preprocessor.processor.do_center_crop = False
    with pytest.raises(EvaluationError, match=r"the shape of row \d+ is"):
        cached_pixels(rows, "image", preprocessor, "me", tmp_path, "task x")


@pytest.mark.parametrize(("column", "message"), [("label", "not images"), ("picture", "its columns: image, label")])
def test_the_column_must_hold_images(
    preprocessor: Preprocessor, rows: Any, column: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(EvaluationError, match=message):
        cached_pixels(rows, column, preprocessor, "me", tmp_path, "task x")


def test_a_cache_that_cannot_be_written(preprocessor: Preprocessor, rows: Any, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder of all caches should be")
    with pytest.raises(MachineError, match="cannot write"):
        cached_pixels(rows, "image", preprocessor, "me", tmp_path / "cache", "task x")


def test_a_base_without_an_image_processor(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="image processor cannot be read"):
        Preprocessor(tmp_path)


def test_settings_as_older_repos_hold_them(clip_folders: dict[str, Path], images: Any, tmp_path: Path) -> None:
    """The first CLIP repos name a feature extractor, give sizes as numbers, and say nothing of rescaling."""
    settings = {
        "crop_size": 24,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": 24,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text((clip_folders["base"] / "config.json").read_text())
    old, new = Preprocessor(tmp_path), Preprocessor(clip_folders["base"])
    for image in images:
        pixels = old.to_pixels(image)
        np.testing.assert_array_equal(pixels, new.to_pixels(image))
        cpu = torch.device("cpu")
        torch.testing.assert_close(old.to_input(pixels[None], cpu), new.to_input(pixels[None], cpu))
