"""Head, fine-tuning and data sets that the streams on real weights share.

The base model has one head with the classes of all tasks. It is fitted to a few examples of each class on the frozen
body and stays frozen, so all checkpoints share it, and a score tells how well a merged body serves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch

Batch = tuple[dict[str, torch.Tensor], torch.Tensor]
"""Inputs of the model, and the class of each example among those of its task."""

Part = tuple[torch.Tensor, torch.Tensor, list[int]]
"""Features of the examples of one task, their classes, and the rows of the head for its classes."""

WARMUP = 10


def fit_head(head: torch.nn.Linear, parts: Sequence[Part]) -> None:
    """Fit the head; each example competes within its own task."""
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        fits = [torch.nn.functional.cross_entropy(head(x)[:, rows], labels) for x, labels, rows in parts]
        total = torch.stack(fits).sum() + 1e-3 * (head.weight**2).sum()
        total.backward()
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]


def tune(model: Any, columns: list[int], batches: Iterable[Batch], *, steps: int, rate: float) -> float:
    """Fine-tune the body of a model on one task, and return the mean loss of the last ten steps."""
    model.classifier.requires_grad_(requires_grad=False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP, (steps - step) / (steps - WARMUP))
    )
    losses = []
    for inputs, labels in batches:
        loss = torch.nn.functional.cross_entropy(model(**inputs).logits[:, columns], labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return sum(losses[-10:]) / 10


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder that exists only once it is complete."""
    partial = folder.with_name(f"{folder.name}.partial")
    write(partial)
    partial.rename(folder)


def write_test_split(folder: Path, columns: dict[str, list[Any]], features: datasets.Features) -> None:
    """Write a data set with the split `test`."""

    def write(partial: Path) -> None:
        (partial / "data").mkdir(parents=True, exist_ok=True)
        file = partial / "data" / "test-00000-of-00001.parquet"
        datasets.Dataset.from_dict(columns, features=features).to_parquet(file)

    write_folder(folder, write)
