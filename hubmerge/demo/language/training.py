"""Training of the base models on plain sentences, and fine-tuning of copies on one task each.

All randomness comes from the seed, and torch uses one thread, so a seed gives identical bytes on a machine.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from hubmerge.demo.language.texts import SentenceTask

BATCH = 64
Tokens = dict[str, torch.Tensor]


@dataclass(frozen=True)
class LanguagePlan:
    """Length of the training. Sentences are counted per task, steps in batches of 64."""

    sentences: int = 1500
    # The fraction of the tasks' own sentences, from 0 to 1, in the training of the base models.
    classifier_glimpse: float = 0.005
    writer_glimpse: float = 0.04
    base_steps: int = 400
    task_steps: int = 120
    base_rate: float = 2e-3
    classifier_rate: float = 1e-3
    writer_rate: float = 3e-4


def train_classifier(model: Any, tokenizer: Any, tasks: Sequence[SentenceTask], seed: int, plan: LanguagePlan) -> None:
    """Train all weights on plain sentences of all tasks; the head has the classes of all tasks, in order."""
    texts: list[str] = []
    labels: list[int] = []
    first = 0
    for task in tasks:
        own, numbers = _base_sentences(task, seed, plan.sentences, plan.classifier_glimpse)
        texts += own
        labels += [first + number for number in numbers]
        first += len(task.classes)
    _descend(model, _classes_loss(model, tokenizer, texts, labels), len(texts), plan.base_steps, plan.base_rate, seed)


def tune_classifier(
    base: Any, tokenizer: Any, tasks: Sequence[SentenceTask], task: SentenceTask, seed: int, plan: LanguagePlan
) -> Any:
    """Return a copy of the base model, fine-tuned on one task's own sentences."""
    first = sum(len(other.classes) for other in tasks[: list(tasks).index(task)])
    texts, numbers = task.sentences("train", plan.sentences, seed)
    model = copy.deepcopy(base)
    loss = _classes_loss(model, tokenizer, texts, [first + number for number in numbers])
    _descend(model, loss, len(texts), plan.task_steps, plan.classifier_rate, seed)
    return model


def train_writer(model: Any, tokenizer: Any, tasks: Sequence[SentenceTask], seed: int, plan: LanguagePlan) -> None:
    """Train the model on plain sentences of all tasks."""
    texts = [text for task in tasks for text in _base_sentences(task, seed, plan.sentences, plan.writer_glimpse)[0]]
    _descend(model, _words_loss(model, tokenizer, texts), len(texts), plan.base_steps, plan.base_rate, seed)


def tune_writer(base: Any, tokenizer: Any, task: SentenceTask, seed: int, plan: LanguagePlan) -> Any:
    """Return a copy of the base model, fine-tuned to write one task's own sentences."""
    texts = task.sentences("train", plan.sentences, seed)[0]
    model = copy.deepcopy(base)
    _descend(model, _words_loss(model, tokenizer, texts), len(texts), plan.task_steps, plan.writer_rate, seed)
    return model


def _base_sentences(task: SentenceTask, seed: int, count: int, glimpse: float) -> tuple[list[str], list[int]]:
    """Return the texts of a task for a base model: plain sentences, and a few of its own ones."""
    few = round(glimpse * count)
    plain, own = task.sentences("plain", count - few, seed), task.sentences("train", few, seed + 1)
    return plain[0] + own[0], plain[1] + own[1]


def _classes_loss(
    model: Any, tokenizer: Any, texts: Sequence[str], labels: Sequence[int]
) -> Callable[[torch.Tensor], torch.Tensor]:
    tokens, targets = _tokens(tokenizer, texts), torch.tensor(labels)

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        batch = {name: values[chosen] for name, values in tokens.items()}
        return functional.cross_entropy(model(**batch).logits, targets[chosen])

    return loss


def _words_loss(model: Any, tokenizer: Any, texts: Sequence[str]) -> Callable[[torch.Tensor], torch.Tensor]:
    tokens = _tokens(tokenizer, texts)

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        batch = {name: values[chosen] for name, values in tokens.items()}
        logits = model(**batch).logits[:, :-1]
        there = batch["attention_mask"][:, 1:].bool()
        return functional.cross_entropy(logits[there], batch["input_ids"][:, 1:][there])

    return loss


def _tokens(tokenizer: Any, texts: Sequence[str]) -> Tokens:
    found = tokenizer(list(texts), padding=True, return_tensors="pt")
    return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}


def _descend(
    model: Any, loss_of: Callable[[torch.Tensor], torch.Tensor], count: int, steps: int, rate: float, seed: int
) -> None:
    """Minimize a loss with AdamW and a cosine schedule, over random batches of `count` sentences."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1.0, (step + 1) / max(1, steps // 20)) * 0.5 * (1 + math.cos(math.pi * step / steps)),
    )
    model.train()
    for _ in range(steps):
        loss = loss_of(torch.randint(count, (BATCH,), generator=generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
