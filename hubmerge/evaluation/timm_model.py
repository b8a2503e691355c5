"""Image models of timm: built from config and values, with the preprocessing that their config describes."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import PIL.Image
import torch

from hubmerge.checkpoints.model_class.class_lookup import config_folder
from hubmerge.errors import EvaluationError
from hubmerge.evaluation.pixels import Preprocessor, as_channels, check_side

_ON_TENSORS = frozenset({"ToTensor", "MaybeToTensor", "Normalize"})
"""Steps of timm's preprocessing that are done for each batch."""


def timm_library() -> Any:
    """Import and return timm.

    Raises:
        EvaluationError: it is not installed.
    """
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise EvaluationError(
            f"timm cannot be imported: {error}; scores of a timm model need it",
            hint="pip install timm",
        ) from error


def build_timm(config: Mapping[str, Any], values: Mapping[str, torch.Tensor]) -> Any:
    """Return a model of timm in evaluation mode, with exactly the given values.

    Raises:
        EvaluationError: timm is not installed.
        RuntimeError: a value is missing, unknown or has another shape.
    """
    timm = timm_library()
    with config_folder(config) as folder:
        model = timm.create_model(f"local-dir:{folder}", pretrained=False)
    buffers = {name for name, _ in model.named_buffers()} - set(values)
    missing, unknown = model.load_state_dict(dict(values), strict=False)
    lacking = sorted(set(missing) - {name for name in buffers if name.endswith("num_batches_tracked")}) or unknown
    if lacking:
        raise RuntimeError(f"tensor {lacking[0]!r} is missing or not in the model")
    return model.eval()


class TimmPreprocessor(Preprocessor):
    """Preprocessing of a timm model by its config: `to_pixels` resizes and crops, `to_input` normalizes."""

    def __init__(self, base_folder: Path) -> None:
        timm, data = timm_library(), importlib.import_module("timm.data")
        file = base_folder / "config.json"
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
            settings = data.resolve_data_config({}, pretrained_cfg=dict(config.get("pretrained_cfg") or {}))
            steps = data.create_transform(**settings, is_training=False).transforms
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EvaluationError(
                f"{base_folder}: the preprocessing in the base model's config cannot be read: {error}",
                hint="choose a base model whose config.json has a `pretrained_cfg` with input_size, mean and std",
                file=str(file),
            ) from error
        check_side(max(settings["input_size"]), f"{base_folder}/config.json: input_size")
        self._steps = [step for step in steps if type(step).__name__ not in _ON_TENSORS]
        self.rescale = 1 / 255
        self.mean, self.std = as_channels(settings["mean"]), as_channels(settings["std"])
        self._settings = f"timm {timm.__version__} {json.dumps(settings, sort_keys=True, default=str)}"

    @property
    def digest_text(self) -> str:
        """Settings and versions of the libraries that resize, which the pixels depend on."""
        return f"{self._settings} pillow {PIL.__version__}"

    def to_pixels(self, image: PIL.Image.Image) -> np.ndarray:
        """Return the pixels of an image, uint8 (3, H, W), resized and cropped, not rescaled or normalized."""
        found: Any = image.convert("RGB")
        for step in self._steps:
            found = step(found)
        return np.asarray(found, dtype=np.uint8).transpose(2, 0, 1)
