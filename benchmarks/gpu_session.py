"""One session on a GPU: tests, kernels, and a study of twenty towers of ViT-B/32 width.

    python benchmarks/gpu_session.py --out gpu/            under 25 minutes on a large GPU
    python benchmarks/gpu_session.py --out toy/ --toy      the whole session at toy size, on the CPU too

The parts are: the card's name, the tests that use a GPU, benchmarks/gpu.py, training, and a study of the methods on 8,
14 and 20 tasks. A finished part leaves a file in the folder and is not run again, so a session that was cut off
continues where it stopped; the study keeps every cell. No part begins after --minutes, and the study ends then.

The base model is a CLIP whose vision tower has the width and depth of ViT-B/32 (768 wide, 12 layers), trained from
scratch on plain drawings of the demo; each tower is fine-tuned on one of its twenty tasks.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.nn import functional
from transformers import AutoTokenizer, CLIPModel

from hubmerge.demo import folders, training
from hubmerge.demo.model import make_model, make_tokenizer, vision_tower
from hubmerge.demo.plan import NAMESPACE
from hubmerge.demo.tasks import TASKS, DemoTask

HERE = Path(__file__).parent
SEED = 0
GPU_TESTS = (
    "tests/executor/parallel/test_batches.py",
    "tests/executor/parallel/test_moments_together.py",
    "tests/executor/test_runs.py",
)
STUDY = [
    {"method": "opcm", "name": "OPCM, diagonal kept", "parameters": {"diagonal": "keep"}},
    {"method": "wudi", "name": "WUDI exact", "parameters": {"ridge": [0.1]}},
    {"method": "adaptive_scale", "name": "adaptive scale"},
    {"method": "weight_average", "name": "weight average"},
    {"method": "task_arithmetic", "name": "task arithmetic", "parameters": {"scaling": [0.1, 0.2, 0.3]}},
    {"method": "iso_c", "name": "Iso-C", "parameters": {"scaling": [1.5, 1.0]}},
    {"method": "tsv_m", "name": "TSV-M"},
    {"method": "ace", "name": "ACE on moments"},
    {"method": "opcm", "name": "OPCM"},
    {"method": "ties", "name": "continual TIES 0.1", "parameters": {"scaling": 0.1}},
    {"method": "magmax", "name": "MagMax 0.5"},
    {"method": "wudi", "name": "WUDI exact, more ridges", "parameters": {"ridge": [0.01, 0.3, 1.0]}},
    {"method": "subspace_boost", "name": "subspace boosting"},
    {"method": "spectrum", "name": "spectrum 0.5 x 0.5"},
    {"method": "null_space_filter", "name": "null-space filter 128"},
    {"method": "nufilt", "name": "NUFILT 128/64"},
    {"method": "pcb", "name": "PCB", "parameters": {"lambda": 1.0}},
    {"method": "iso_cts", "name": "Iso-CTS"},
]


@dataclass(frozen=True)
class Size:
    """Size of the vision tower, of its training and of the study."""

    width: int
    layers: int
    heads: int
    images: int
    base_steps: int
    base_rate: float
    task_steps: int
    task_rate: float
    test_images: int
    tasks: tuple[int, ...]


FULL = Size(768, 12, 12, 1000, 3000, 2e-4, 200, 2e-5, 500, (8, 14, 20))
TOY = Size(32, 2, 2, 20, 10, 2e-4, 3, 1e-3, 12, (2, 3))


def main() -> None:
    """Run the parts that are not done."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--toy", action="store_true")
    arguments = parser.parse_args()
    out, size = arguments.out.resolve(), TOY if arguments.toy else FULL
    out.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * arguments.minutes
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pytest = [sys.executable, "-m", "pytest", "-q"]
    tests = [*pytest, *GPU_TESTS]
    kernels = [sys.executable, "benchmarks/gpu.py"]
    if arguments.toy:
        tests = [*pytest, "--collect-only", *GPU_TESTS]
        kernels += ["--device", "cpu", "--shapes", "12x24", "--batches", "1", "2", "--rounds", "1"]
    parts: dict[str, Callable[[], str]] = {
        "card.txt": lambda: card(device),
        "tests.txt": lambda: printed(tests, ends),
        "kernels.md": lambda: printed(kernels, ends),
        "training.txt": lambda: train(out, size, device),
    }
    for name, part in parts.items():
        if not (out / name).exists() and time.monotonic() < ends:
            began = time.monotonic()
            text = part()
            (out / name).write_text(f"{text}\n{time.monotonic() - began:.0f} s\n", encoding="utf-8")
            print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    if (out / "training.txt").exists():
        study(out, size, ends)


def card(device: torch.device) -> str:
    """Return the name of the device and the versions of the libraries."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return json.dumps({"device": name, "torch": torch.__version__, "cuda": torch.version.cuda, "python": sys.version})


def printed(command: Sequence[str], ends: float) -> str:
    """Return the output of a command and its exit status; it is stopped at the end of the session."""
    left = max(1.0, ends - time.monotonic())
    try:
        done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, timeout=left, check=False)
    except subprocess.TimeoutExpired:
        return f"stopped after {left:.0f} s"
    return f"{done.stdout}{done.stderr}exit status {done.returncode}"


def train(out: Path, size: Size, device: torch.device) -> str:
    """Write base model, towers, test images and recipe; return the accuracies. What exists is not made again."""
    stream = out / "stream"
    tokenizer = make_tokenizer(prompt for task in TASKS for prompt in task.prompts)
    chosen = TASKS[: max(size.tasks)]
    if not (stream / "base").exists():
        model = wide_model(tokenizer, size).to(device)
        train_base(model, tokenizer, chosen, size, device)
        folders.write_base(stream / "base.partial", model.cpu(), tokenizer, "trained from scratch on plain drawings")
        (stream / "base.partial").rename(stream / "base")
    lines = []
    for task in chosen:
        if not (stream / "towers" / task.name).exists():
            base = CLIPModel.from_pretrained(stream / "base").to(device).eval()
            tokenizer = AutoTokenizer.from_pretrained(stream / "base")
            tuned = fine_tune(base, tokenizer, task, size, device)
            partial = stream / "towers" / f"{task.name}.partial"
            folders.write_tower(partial, vision_tower(tuned.cpu()), task, NAMESPACE, {})
            partial.rename(stream / "towers" / task.name)
        if not (stream / "datasets" / task.name).exists():
            folders.write_dataset(stream / "datasets" / task.name, task, SEED, {"test": size.test_images})
        lines.append(task.name)
    write_recipe(out, chosen)
    return "\n".join(lines)


def wide_model(tokenizer: Any, size: Size) -> CLIPModel:
    """Return a CLIP with random weights whose vision tower has the given width and depth."""
    config = make_model(tokenizer, SEED).config
    vision = config.vision_config
    vision.hidden_size, vision.intermediate_size = size.width, 4 * size.width
    vision.num_hidden_layers, vision.num_attention_heads = size.layers, size.heads
    vision.patch_size = 4
    torch.manual_seed(SEED)
    return CLIPModel(config)


def train_base(model: CLIPModel, tokenizer: Any, tasks: Sequence[DemoTask], size: Size, device: torch.device) -> None:
    """Train all weights on plain drawings; the loss compares the prompts of all tasks and those of the image's own."""
    drawings = training.draw_plain(tasks, size.images, SEED)
    pixels, labels, owners = (x.to(device) for x in (drawings.pixels, drawings.labels, drawings.tasks))
    prompt_owners = torch.tensor([n for n, task in enumerate(tasks) for _ in task.class_names], device=device)
    prompts = [prompt for task in tasks for prompt in task.prompts]
    tokens = tokenizer(prompts, padding=True, return_tensors="pt").to(device)

    def loss(batch: torch.Tensor) -> torch.Tensor:
        texts = training.text_features(model, tokens)
        logits = model.logit_scale.exp() * training.image_features(model, pixels[batch]) @ texts.T
        own = logits.masked_fill(owners[batch][:, None] != prompt_owners[None, :], -1e4)
        return functional.cross_entropy(logits, labels[batch]) + functional.cross_entropy(own, labels[batch])

    descend([*model.parameters()], loss, len(labels), size.base_steps, size.base_rate, device)


def fine_tune(base: CLIPModel, tokenizer: Any, task: DemoTask, size: Size, device: torch.device) -> CLIPModel:
    """Return a copy of the model with the vision tower fine-tuned on one task."""
    model = copy.deepcopy(base)
    images, numbers = task.images("train", size.images, SEED)
    pixels, labels = training.to_pixels(images).to(device), torch.tensor(numbers, device=device)
    tokens = tokenizer(task.prompts, padding=True, return_tensors="pt").to(device)
    with torch.no_grad():
        texts = model.logit_scale.exp() * training.text_features(model, tokens)
    model.requires_grad_(requires_grad=False)
    model.vision_model.requires_grad_(requires_grad=True)

    def loss(batch: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(training.image_features(model, pixels[batch]) @ texts.T, labels[batch])

    descend([*model.vision_model.parameters()], loss, len(labels), size.task_steps, size.task_rate, device)
    return model.eval()


def descend(
    parameters: list[torch.nn.Parameter],
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    count: int,
    steps: int,
    rate: float,
    device: torch.device,
) -> None:
    """Minimize a loss with AdamW and a cosine schedule over random batches of 64."""
    draw = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    warmup = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / warmup) * 0.5 * (1 + float(np.cos(np.pi * step / steps)))
    )
    for _ in range(steps):
        loss = loss_of(torch.randint(count, (64,), generator=draw).to(device))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()


def write_recipe(out: Path, tasks: Sequence[DemoTask]) -> None:
    """Write the recipe of the stream."""
    evaluated = [
        {
            "name": task.name,
            "kind": "zero-shot-image-classification",
            "dataset": {"path": f"./stream/datasets/{task.name}"},
            "prompts": [task.prompt],
            "model": task.name,
        }
        for task in tasks
    ]
    recipe = {
        "merge_method": "opcm",
        "base_model": "./stream/base",
        "models": [{"model": f"./stream/towers/{task.name}", "name": task.name} for task in tasks],
        "dtype": "float32",
        "evaluate": {"batch_size": 256, "tasks": evaluated},
    }
    (out / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


def study(out: Path, size: Size, ends: float) -> None:
    """Merge and score the missing cells, as many as the session has time for."""
    spec = {"recipe": "./recipe.yaml", "methods": STUDY, "tasks": list(size.tasks), "score": "last"}
    (out / "study.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "hubmerge", "study", str(out / "study.yaml"), "--out", str(out / "study")]
    left = max(1.0, ends - time.monotonic())
    try:
        subprocess.run(command, timeout=left, check=True)
    except subprocess.TimeoutExpired:
        print(f"the study was stopped after {left:.0f} s; run the command again to continue", flush=True)


if __name__ == "__main__":
    main()
