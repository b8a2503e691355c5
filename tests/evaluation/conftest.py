"""A tiny random CLIP model with everything a CLIP repo holds, and a few images.

Libraries that read HF_ENDPOINT are imported inside the fixtures: this file is read before the tests' Hub is up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def clip_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Save a full CLIP model (`base`), a vision tower with other weights (`tower`), and the base with it (`merged`)."""
    import torch
    from transformers.utils import logging as transformers_logging

    from hubmerge.demo.model import make_model, make_tokenizer, perturbed_tower, save_base, save_tower
    from tests.evaluation.small_task import CLASS_NAMES, PROMPTS

    transformers_logging.disable_progress_bar()
    root = tmp_path_factory.mktemp("clip")
    texts = [prompt.replace("{}", name) for prompt in PROMPTS for name in CLASS_NAMES]
    tokenizer = make_tokenizer(texts)
    base = make_model(tokenizer, seed=1).eval()
    tower = perturbed_tower(base, seed=2, size=0.1)
    save_base(base, tokenizer, root / "base")
    save_tower(tower, root / "tower")
    with torch.no_grad():
        values = {name.removeprefix("vision_model."): value for name, value in tower.state_dict().items()}
        for name, parameter in base.vision_model.named_parameters():
            parameter.copy_(values[name])
    save_base(base, tokenizer, root / "merged")
    return {name: root / name for name in ("base", "tower", "merged")}


@pytest.fixture(scope="session")
def images() -> list[Image.Image]:
    """Twenty images of several sizes and modes."""
    random = np.random.default_rng(3)
    made = []
    for number in range(20):
        height, width = random.integers(20, 60, 2)
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        image = coarse.resize((int(width), int(height)), Image.Resampling.BICUBIC)
        made.append(image.convert(["RGB", "L", "RGBA", "P"][number % 4]))
    return made


@pytest.fixture
def rows(images: Any) -> Any:
    """Return the images as a dataset, each with a class."""
    import datasets

    from tests.evaluation.small_task import CLASS_NAMES

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASS_NAMES)})
    labels = [number % len(CLASS_NAMES) for number in range(len(images))]
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


@pytest.fixture
def scorer(clip_folders: dict[str, Path]) -> Any:
    """Return a scorer that has loaded the base model."""
    from hubmerge.checkpoints import open_checkpoint
    from hubmerge.evaluation import task_kind_named

    kind = task_kind_named("zero-shot-image-classification")
    return kind.open_scorer(clip_folders["base"], open_checkpoint(clip_folders["base"]), identity="b" * 40)
