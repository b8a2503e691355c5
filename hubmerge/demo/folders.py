"""Folders of the demo's repos, ready to push: models, towers and datasets, each with a card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import yaml
from transformers import CLIPModel, CLIPTokenizer, CLIPVisionModel
from transformers.utils import logging as transformers_logging

from hubmerge.demo.model import save_base, save_tower
from hubmerge.demo.stream import BASE_NAME
from hubmerge.demo.tasks import DemoTask
from hubmerge.support.names import CARD_FILE

LICENSE = "apache-2.0"


def write_base(folder: Path, model: CLIPModel, tokenizer: CLIPTokenizer, origin: str) -> None:
    """Write the repo of the base model; `origin` completes the card's sentence "weights ..."."""
    folder.mkdir(parents=True)
    with quiet():
        save_base(model, tokenizer, folder)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    write_card(
        folder,
        {
            "license": LICENSE,
            "library_name": "transformers",
            "pipeline_tag": "zero-shot-image-classification",
            "tags": ["clip", "hubmerge-demo"],
        },
        f"""# {BASE_NAME}

A CLIP model with {parameters:,} parameters for images of 24 x 24 pixels; weights {origin}.
It exists to show model merging on a machine without a GPU, and is of no other use.

```python
from transformers import pipeline

classifier = pipeline("zero-shot-image-classification", model="{{this repo}}")
```

Some of its training images are patches of the images that scikit-image and scikit-learn bring along.
""",
    )


def write_tower(
    folder: Path, tower: CLIPVisionModel, task: DemoTask, namespace: str, scores: Mapping[str, float]
) -> None:
    """Write the repo of a fine-tuned vision tower; `scores` is the accuracy on the test images in percent, by model."""
    folder.mkdir(parents=True)
    with quiet():
        save_tower(tower, folder)
    rows = "".join(f"| {model} | {accuracy:.1f} % |\n" for model, accuracy in scores.items())
    table = f"\n| | accuracy on the test images |\n|---|---|\n{rows}" if rows else ""
    write_card(
        folder,
        {
            "license": LICENSE,
            "library_name": "transformers",
            "pipeline_tag": "image-feature-extraction",
            "base_model": f"{namespace}/{BASE_NAME}",
            "base_model_relation": "finetune",
            "datasets": [f"{namespace}/{task.name}"],
            "tags": ["clip", "hubmerge-demo"],
        },
        f"""# {BASE_NAME}_{task.name}

The vision tower of [{namespace}/{BASE_NAME}](/{namespace}/{BASE_NAME}), fine-tuned on
[{namespace}/{task.name}](/datasets/{namespace}/{task.name}). {task.about}
The text tower and both projections stayed as they are, so zero-shot prompts of the base model still apply.
{table}""",
    )


def write_dataset(folder: Path, task: DemoTask, seed: int, counts: Mapping[str, int]) -> None:
    """Write the repo of one task's images: a Parquet file for each split ("train", "test")."""
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(task.class_names))}
    )
    (folder / "data").mkdir(parents=True)
    with quiet():
        for split, count in counts.items():
            images, labels = task.images(split, count, seed)
            table = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
            table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    numbered = {str(number): name for number, name in enumerate(task.class_names)}
    write_card(
        folder,
        {
            "license": LICENSE,
            "task_categories": ["image-classification", "zero-shot-image-classification"],
            "tags": ["hubmerge-demo"],
            "configs": [
                {
                    "config_name": "default",
                    "data_files": [{"split": split, "path": f"data/{split}-*"} for split in counts],
                }
            ],
            "dataset_info": {
                "features": [
                    {"name": "image", "dtype": "image"},
                    {"name": "label", "dtype": {"class_label": {"names": numbered}}},
                ]
            },
        },
        f"""# {task.name}

{task.about} Images of 24 x 24 pixels, {len(task.class_names)} classes, taking turns.
Prompt for zero-shot classification: `{task.prompt}`.
""",
    )


def write_card(folder: Path, metadata: Mapping[str, Any], text: str) -> None:
    """Write README.md: the metadata as YAML, then the text."""
    front = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True)
    (folder / CARD_FILE).write_text(f"---\n{front}---\n\n{text}", encoding="utf-8", newline="\n")


@contextmanager
def quiet() -> Iterator[None]:
    """Turn off the progress bars of transformers and datasets in the block."""
    models_showed = transformers_logging.is_progress_bar_enabled()
    datasets_showed = datasets.utils.are_progress_bars_disabled() is False
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if models_showed:
            transformers_logging.enable_progress_bar()
        if datasets_showed:
            datasets.enable_progress_bars()
