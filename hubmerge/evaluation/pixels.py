"""Pixels of images: decoded, resized and cropped to uint8 once, and kept in one memory-mapped file.

Rescaling and normalizing are cheap and done for each batch, so that the file has a quarter of the size of float32.
"""

from __future__ import annotations

import io
import json
import os
import uuid
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import datasets
import numpy as np
import PIL
import PIL.Image
import torch
from transformers import AutoImageProcessor

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.cache import cached_file, is_cached
from hubmerge.evaluation.columns import check_images
from hubmerge.support import interrupts
from merge_recipes import DatasetReference

CHUNK_IMAGES = 128
MAX_IMAGE_PIXELS = 64_000_000
"""Pixels of the largest image that is decoded; several are decoded at a time, each with 3 bytes a pixel and more."""

MAX_SIDES_RATIO = 100
"""Longer side over shorter side: a processor scales the shorter side up to a fixed size, and the longer with it."""

MAX_MODEL_SIDE = 4096
"""Longest side of an image that a processor may ask for, in pixels."""


class Preprocessor:
    """Image processor of the base model in two parts: `to_pixels` once, `to_input` for every batch.

    It always uses Pillow: the faster variant resizes differently, and a score must not depend on installed packages.
    """

    def __init__(self, base_folder: Path) -> None:
        try:
            self.processor = AutoImageProcessor.from_pretrained(
                base_folder, backend="pil", local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, ImportError) as error:
            raise EvaluationError(
                f"{base_folder}: the base model's image processor cannot be read: {error}",
                hint="choose a base model with a preprocessor_config.json",
                file=str(base_folder / "preprocessor_config.json"),
            ) from error
        _check_model_size(self.processor, base_folder)
        self.rescale = self.processor.rescale_factor if self.processor.do_rescale else 1.0
        self.mean = as_channels(self.processor.image_mean if self.processor.do_normalize else 0.0)
        self.std = as_channels(self.processor.image_std if self.processor.do_normalize else 1.0)

    @property
    def digest_text(self) -> str:
        """Settings of the processor and version of the library that resizes, which the pixels depend on."""
        settings = json.dumps(self.processor.to_dict(), sort_keys=True, default=str)
        return f"{type(self.processor).__name__} {settings} pillow {PIL.__version__}"

    def to_pixels(self, image: PIL.Image.Image) -> np.ndarray:
        """Return the pixels of an image, uint8 (3, H, W), resized and cropped, not rescaled or normalized."""
        pixels = self.processor(
            images=image, do_rescale=False, do_normalize=False, do_convert_rgb=True, return_tensors="np"
        )["pixel_values"][0]
        if pixels.dtype != np.uint8:
            pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        return pixels

    def to_input(self, pixels: np.ndarray, device: torch.device) -> torch.Tensor:
        """Return pixels, uint8 (B, 3, H, W), as float32 on `device`, rescaled and normalized like the processor."""
        values = torch.from_numpy(np.array(pixels)).to(device, torch.float32)
        return (values * self.rescale - self.mean.to(device)) / self.std.to(device)


def rows_identity(source: DatasetReference, commit: str | None, chosen: np.ndarray | None) -> str:
    """Return a text that names the rows of a dataset, and none before or after if the commit is unknown.

    The first rows are named by their number, which the text does not repeat: older caches have it so.
    """
    parts = [source.path, source.name or "", source.split, commit or f"unknown {uuid.uuid4()}"]
    if chosen is not None and source.sample != "first":
        parts.append(sha256(chosen.astype("<i8").tobytes()).hexdigest())
    return "\n".join(parts)


def cached_pixels(
    rows: datasets.Dataset, column: str, preprocessor: Preprocessor, identity: str, cache_folder: Path, where: str
) -> np.ndarray:
    """Return the pixels of all rows, uint8 (N, 3, H, W), memory-mapped; they are computed on the first call.

    Args:
        rows: the dataset.
        column: the name of the image column.
        preprocessor: the image processor.
        identity: dataset, commit, split and selection; equal identities must mean equal rows.
        cache_folder: the folder of the file.
        where: the task and its dataset, for messages.

    Raises:
        EvaluationError: the column is missing or has no images, an image cannot be decoded, or sizes differ.
        MachineError: the cache folder cannot be written.
    """
    check_images(rows.features, column, where)
    digest = sha256(f"{identity}\n{column}\n{len(rows)}\n{preprocessor.digest_text}\n8 bits".encode()).hexdigest()
    file = cache_folder / "pixels" / f"{digest[:32]}.npy"
    if not is_cached(file):
        with cached_file(file) as out:
            _write_images(out, _all_pixels(rows, column, preprocessor, where), len(rows), where)
    pixels: np.ndarray = np.load(file, mmap_mode="r")
    return pixels


def _all_pixels(rows: datasets.Dataset, column: str, preprocessor: Preprocessor, where: str) -> Iterator[np.ndarray]:
    """Yield the pixels of every row in order, computed in threads: decoding and resizing release Python's lock."""
    stored = rows.with_format(None)
    if isinstance(rows.features[column], datasets.Image):
        stored = stored.cast_column(column, datasets.Image(decode=False))

    def convert(numbered: tuple[int, Any]) -> np.ndarray:
        interrupts.check()
        row, value = numbered
        return preprocessor.to_pixels(_decode(value, f"{where}: row {row}"))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for begin in range(0, len(stored), CHUNK_IMAGES):
            values: Sequence[Any] = stored[begin : begin + CHUNK_IMAGES][column]
            yield from pool.map(convert, enumerate(values, begin))


def _decode(value: dict[str, Any] | bytes | None, where: str) -> PIL.Image.Image:
    if isinstance(value, bytes):
        value = {"bytes": value, "path": None}
    if value is None:
        raise EvaluationError(f"{where} has no image")
    value = {"path": None, **value}
    if value["bytes"] is None and not Path(value["path"] or "").is_file():
        raise EvaluationError(f"{where}: the dataset contains only the address of the image, {value['path']!r}")
    try:
        _check_size(value, where)
        return _with_eight_bits(datasets.Image().decode_example(value), where)
    except EvaluationError:
        raise
    except Exception as error:  # Pillow raises many types for a broken file
        # Pillow's message has the address of an object in memory.
        cause = "no format of images that Pillow knows" if isinstance(error, PIL.UnidentifiedImageError) else error
        raise EvaluationError(
            f"{where}: the image cannot be decoded: {cause}", hint="remove the row from the dataset"
        ) from error


def _with_eight_bits(image: PIL.Image.Image, where: str) -> PIL.Image.Image:
    """Return an image with 8 bits for each channel. Pillow's own conversion makes all values above 255 white.

    Raises:
        EvaluationError: the values have 32 bits and are not those of 8 bits, so that their range is not known.
    """
    if image.mode.startswith("I;16"):
        return PIL.Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if image.mode not in {"I", "F"}:
        return image
    values = np.asarray(image)
    least, most = float(values.min()), float(values.max())
    if least < 0 or most > 255 or 0 < most <= 1:
        raise EvaluationError(
            f"{where}: the image has values of 32 bits from {least:g} to {most:g}: expected 8 or 16 bits per channel",
            hint="save the images of the dataset as PNG or JPEG with 8 bits",
        )
    return PIL.Image.fromarray(np.rint(values).astype(np.uint8))


def _check_size(value: dict[str, Any], where: str) -> None:
    """Check the size in the file's header, before any pixel is decoded: a file of 20 kB may unpack to gigabytes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        with PIL.Image.open(value["path"] if value["bytes"] is None else io.BytesIO(value["bytes"])) as image:
            width, height = image.size
    if width * height > MAX_IMAGE_PIXELS:
        raise EvaluationError(
            f"{where}: the image has {width} x {height} pixels: expected at most {MAX_IMAGE_PIXELS // 10**6} million",
            hint="remove the row from the dataset, or make the image smaller",
        )
    if max(width, height) > MAX_SIDES_RATIO * max(1, min(width, height)):
        raise EvaluationError(
            f"{where}: the image has {width} x {height} pixels: expected sides that differ by a factor of at most "
            f"{MAX_SIDES_RATIO}",
            hint="remove the row from the dataset",
        )


def _check_model_size(processor: Any, base_folder: Path) -> None:
    """Check the sizes that the image processor of a base model asks for."""
    for name in ("size", "crop_size", "pad_size"):
        sides = dict(getattr(processor, name, None) or {})
        for key in ("shortest_edge", "height", "width"):
            place = f"{base_folder}/preprocessor_config.json: {name} asks for images with {key}"
            check_side(sides.get(key) or 0, place)


def check_side(side: int, place: str) -> None:
    """Check the length of a side of the images that a base model asks for.

    Raises:
        EvaluationError: it is too long.
    """
    if side > MAX_MODEL_SIDE:
        raise EvaluationError(
            f"{place} {side}: expected at most {MAX_MODEL_SIDE}",
            hint="choose another base model",
            file="preprocessor_config.json",
        )


def _write_images(out: BinaryIO, images: Iterable[np.ndarray], count: int, where: str) -> None:
    """Write an .npy file image by image.

    It is not memory-mapped, because a full disk would then end the process without a message.
    """
    shape: tuple[int, ...] | None = None
    for row, image in enumerate(images):
        if shape is None:
            shape = image.shape
            header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
            np.lib.format.write_array_header_1_0(out, header)
        if image.shape != shape:
            raise EvaluationError(
                f"{where}: the shape of row {row} is {image.shape} after resizing, that of row 0 is {shape}",
                hint="choose a base model whose image processor crops or resizes to one size",
            )
        out.write(image.tobytes())


def as_channels(value: float | Sequence[float]) -> torch.Tensor:
    """Return one number for all channels, or one per channel, as float32 that broadcasts over (B, 3, H, W)."""
    return torch.as_tensor(value, dtype=torch.float32).reshape(1, -1, 1, 1)
