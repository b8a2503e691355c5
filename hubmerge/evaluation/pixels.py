"""Images to pixels, once a run: decoded, resized and cropped to uint8, kept in one memory-mapped file.

Rescaling and normalising are cheap and happen batch by batch, so the file is a quarter of the size of float32.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import datasets
import numpy as np
import PIL
import torch
from transformers import AutoImageProcessor

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.cache import whole_file
from hubmerge.evaluation.labels import check_column

CHUNK_IMAGES = 128


class Preprocessor:
    """The base model's image processor, split in two: `to_pixels` once, `to_input` for every batch.

    The PIL variant is asked for by name: the faster one resizes differently, and a score must not depend on which
    packages happen to be installed.
    """

    def __init__(self, base_folder: Path) -> None:
        try:
            self.processor = AutoImageProcessor.from_pretrained(
                base_folder, backend="pil", local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, ImportError) as error:
            raise EvaluationError(
                f"{base_folder}: the base model's image processor cannot be read: {error}",
                hint="the base model's repo must hold preprocessor_config.json",
            ) from error
        self.rescale = self.processor.rescale_factor if self.processor.do_rescale else 1.0
        self.mean = _channels(self.processor.image_mean if self.processor.do_normalize else 0.0)
        self.std = _channels(self.processor.image_std if self.processor.do_normalize else 1.0)

    @property
    def digest_text(self) -> str:
        """Everything that decides the pixels, as text: the processor's settings and the library that resizes."""
        settings = json.dumps(self.processor.to_dict(), sort_keys=True, default=str)
        return f"{type(self.processor).__name__} {settings} pillow {PIL.__version__}"

    def to_pixels(self, image: PIL.Image.Image) -> np.ndarray:
        """One image -> uint8 (3, H, W), resized and cropped, neither rescaled nor normalised."""
        pixels = self.processor(
            images=image, do_rescale=False, do_normalize=False, do_convert_rgb=True, return_tensors="np"
        )["pixel_values"][0]
        if pixels.dtype != np.uint8:
            pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        return pixels

    def to_input(self, pixels: np.ndarray, device: torch.device) -> torch.Tensor:
        """uint8 (B, 3, H, W) -> float32 on `device`, rescaled and normalised as the processor would."""
        values = torch.from_numpy(np.array(pixels)).to(device, torch.float32)
        return (values * self.rescale - self.mean.to(device)) / self.std.to(device)


def cached_pixels(
    rows: datasets.Dataset, column: str, preprocessor: Preprocessor, identity: str, cache_folder: Path, where: str
) -> np.ndarray:
    """The pixels of all rows, uint8 (N, 3, H, W), memory-mapped; made on the first call, complete or absent.

    `identity` names dataset, commit, split and selection: equal identities must mean equal rows.

    Raises:
        EvaluationError: no such column, not an image column, an image that cannot be decoded, or images that come out
            in different sizes.
        MachineError: the cache folder cannot be written.
    """
    check_column(rows, column, "image", where)
    if not isinstance(rows.features[column], datasets.Image):
        raise EvaluationError(
            f"{where}: column {column!r} holds {rows.features[column]}, not images",
            hint="set `dataset: {image: ...}` of the task to a column of images",
        )
    digest = sha256(f"{identity}\n{column}\n{len(rows)}\n{preprocessor.digest_text}".encode()).hexdigest()
    file = cache_folder / "pixels" / f"{digest[:32]}.npy"
    if not file.exists():
        with whole_file(file) as out:
            _write_images(out, _all_pixels(rows, column, preprocessor, where), len(rows), where)
    pixels: np.ndarray = np.load(file, mmap_mode="r")
    return pixels


def _all_pixels(rows: datasets.Dataset, column: str, preprocessor: Preprocessor, where: str) -> Iterator[np.ndarray]:
    """The pixels of every row in order. Threads share the work: decoding and resizing leave Python's lock."""
    stored = rows.with_format(None).cast_column(column, datasets.Image(decode=False))

    def convert(numbered: tuple[int, Any]) -> np.ndarray:
        row, value = numbered
        return preprocessor.to_pixels(_decode(value, f"{where}: row {row}"))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for begin in range(0, len(stored), CHUNK_IMAGES):
            values: Sequence[Any] = stored[begin : begin + CHUNK_IMAGES][column]
            yield from pool.map(convert, enumerate(values, begin))


def _decode(value: dict[str, Any] | None, where: str) -> PIL.Image.Image:
    if value is None:
        raise EvaluationError(f"{where} has no image")
    if value["bytes"] is None and not Path(value["path"] or "").is_file():
        raise EvaluationError(f"{where}: the image is not in the dataset, only its address {value['path']!r}")
    try:
        return datasets.Image().decode_example(value)
    except Exception as error:  # Pillow raises many kinds for a broken file
        raise EvaluationError(
            f"{where}: the image cannot be decoded: {error}", hint="leave the row out of the dataset"
        ) from error


def _write_images(out: BinaryIO, images: Iterable[np.ndarray], count: int, where: str) -> None:
    """An .npy file, image by image.

    Written, not mapped: a full disk is then an error that can be told, where a mapping would end the process.
    """
    shape: tuple[int, ...] | None = None
    for row, image in enumerate(images):
        if shape is None:
            shape = image.shape
            header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
            np.lib.format.write_array_header_1_0(out, header)
        if image.shape != shape:
            raise EvaluationError(
                f"{where}: row {row} comes out as {image.shape}, row 0 as {shape}",
                hint="the base model's image processor must crop or resize to one size",
            )
        out.write(image.tobytes())


def _channels(value: float | Sequence[float]) -> torch.Tensor:
    """One number for all channels, or one per channel -> float32, ready to broadcast over (B, 3, H, W)."""
    return torch.as_tensor(value, dtype=torch.float32).reshape(1, -1, 1, 1)
