"""Training of the tiny CLIP model on plain drawings, and fine-tuning of its vision tower on one task.

All randomness comes from the seed, and the number of threads is fixed, so a seed gives identical bytes on a machine.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from transformers import CLIPModel, CLIPTokenizer
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from hubmerge.demo.plan import TrainingPlan
from hubmerge.demo.tasks import DemoTask

Progress = Callable[[str], None]
BATCH = 64


@dataclass(frozen=True)
class PlainDrawings:
    """Plain images of several tasks.

    pixels: (images, 3, 24, 24), float32. labels: (images,), the number of the prompt among those of all tasks.
    tasks: (images,), the number of the task.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    tasks: torch.Tensor


def train_base(
    model: CLIPModel,
    tokenizer: CLIPTokenizer,
    tasks: Sequence[DemoTask],
    seed: int,
    plan: TrainingPlan,
    progress: Progress,
) -> None:
    """Train all weights of the model on plain drawings of all tasks.

    The loss is the mean of the cross entropy over the prompts of all tasks and over those of the image's own task.
    """
    progress(f"drawing {plan.base_images * len(tasks)} plain images of {len(tasks)} tasks")
    drawings = draw_plain(tasks, plan.base_images, seed)
    task_of_prompt = torch.tensor([number for number, task in enumerate(tasks) for _ in task.class_names])
    prompts = [prompt for task in tasks for prompt in task.prompts]
    tokens = tokenizer(prompts, padding=True, return_tensors="pt")

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        texts = text_features(model, tokens)
        logits = model.logit_scale.exp() * image_features(model, drawings.pixels[chosen]) @ texts.T
        labels = drawings.labels[chosen]
        other_task = drawings.tasks[chosen][:, None] != task_of_prompt[None, :]
        all_tasks = functional.cross_entropy(logits, labels)
        own_task = functional.cross_entropy(logits.masked_fill(other_task, -1e4), labels)
        return 0.5 * all_tasks + 0.5 * own_task

    parameters, count = list(model.parameters()), len(drawings.labels)
    model.train()
    _descend(parameters, loss, count, plan.base_steps, plan.base_learning_rate, 0.05, seed, progress)
    model.eval()


def draw_plain(tasks: Sequence[DemoTask], count: int, seed: int) -> PlainDrawings:
    """Draw `count` plain images of each task."""
    pixels: list[torch.Tensor] = []
    labels: list[int] = []
    first = 0
    for task in tasks:
        images, own = task.images("plain", count, seed)
        pixels.append(to_pixels(images))
        labels += [first + label for label in own]
        first += len(task.class_names)
    task_of_image = torch.arange(len(tasks)).repeat_interleave(count)
    return PlainDrawings(torch.cat(pixels), torch.tensor(labels), task_of_image)


def fine_tune(base: CLIPModel, tokenizer: CLIPTokenizer, task: DemoTask, seed: int, plan: TrainingPlan) -> CLIPModel:
    """Return a copy of the model with the vision tower fine-tuned on the task; all other weights are unchanged."""
    model = copy.deepcopy(base)
    images, labels = task.images("train", plan.task_images, seed)
    inputs, targets = to_pixels(images), torch.tensor(labels)
    tokens = tokenizer(task.prompts, padding=True, return_tensors="pt")
    with torch.no_grad():
        texts = model.logit_scale.exp() * text_features(model, tokens)
    model.requires_grad_(requires_grad=False)
    model.vision_model.requires_grad_(requires_grad=True)

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(image_features(model, inputs[chosen]) @ texts.T, targets[chosen])

    parameters = list(model.vision_model.parameters())
    model.train()
    _descend(parameters, loss, len(labels), plan.task_steps, plan.task_learning_rate, 0.0, seed, lambda _: None)
    return model.eval()


@torch.no_grad()
def accuracy(model: CLIPModel, tokenizer: CLIPTokenizer, task: DemoTask, seed: int, count: int) -> float:
    """Return the zero-shot accuracy on the task's first `count` test images, in percent."""
    images, labels = task.images("test", count, seed)
    texts = text_features(model, tokenizer(task.prompts, padding=True, return_tensors="pt"))
    guesses = (image_features(model, to_pixels(images)) @ texts.T).argmax(dim=1)
    return 100 * float((guesses == torch.tensor(labels)).double().mean())


def to_pixels(images: Sequence[Image.Image]) -> torch.Tensor:
    """Return the output of CLIP's image processor for images of the right size: (count, 3, 24, 24), float32."""
    values = np.stack([np.asarray(image) for image in images]).astype(np.float32) / 255
    values = (values - np.array(OPENAI_CLIP_MEAN, np.float32)) / np.array(OPENAI_CLIP_STD, np.float32)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))


def image_features(model: CLIPModel, pixels: torch.Tensor) -> torch.Tensor:
    """Return unit vectors of the images: (images, projection)."""
    pooled = model.vision_model(pixel_values=pixels).pooler_output
    return functional.normalize(model.visual_projection(pooled), dim=-1)


def text_features(model: CLIPModel, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return unit vectors of the prompts: (prompts, projection)."""
    pooled = model.text_model(**tokens).pooler_output
    return functional.normalize(model.text_projection(pooled), dim=-1)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Set the number of threads of torch in the block; the order of sums, and so the last bit, depends on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _descend(
    parameters: list[torch.nn.Parameter],
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    count: int,
    steps: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    progress: Progress,
) -> None:
    """Minimize a loss with AdamW and a cosine schedule, over random batches of `count` images."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
    warmup = max(1, steps // 20)

    def factor(step: int) -> float:
        rising = min(1.0, (step + 1) / warmup)
        return rising * 0.5 * (1 + float(np.cos(np.pi * step / steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for step in range(1, steps + 1):
        loss = loss_of(torch.randint(count, (BATCH,), generator=generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            progress(f"training the base model: step {step} of {steps}, loss {loss.item():.2f}")
