"""Settings of a demo stream and of its training; they determine every byte of the stream."""

from __future__ import annotations

from dataclasses import dataclass

from hubmerge.demo.tasks import TASKS

NAMESPACE = "hubmerge-demo"

# Raise it when a change gives other files for equal settings, so that older folders are replaced.
FORMAT = 1


@dataclass(frozen=True)
class TrainingPlan:
    """Length and strength of the training. Images are counted per task, steps in batches of 64."""

    base_tasks: tuple[str, ...] = tuple(task.name for task in TASKS)
    base_images: int = 1000
    base_steps: int = 1000
    base_learning_rate: float = 2e-3
    task_images: int = 1000
    task_steps: int = 120
    task_learning_rate: float = 2e-4


@dataclass(frozen=True)
class StreamSettings:
    """Settings of a stream of towers; with `training=None`, all weights stay random, for quick tests."""

    tasks: tuple[str, ...]
    seed: int = 0
    namespace: str = NAMESPACE
    training: TrainingPlan | None = TrainingPlan()
    train_images: int = 100
    test_images: int = 240
    format: int = FORMAT
