"""Engines that run language models in tasks: transformers in this process, or vllm where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.text_model import TextScorer
from merge_recipes import Task

VLLM = "vllm"


def check_engine(task: Task) -> None:
    """Check that the engine of a task is installed.

    Raises:
        EvaluationError: it is vllm, which is not installed.
    """
    if task.engine == VLLM and importlib.util.find_spec(VLLM) is None:
        raise EvaluationError(
            f"task {task.name}: engine vllm needs the package vllm, which is not installed",
            hint="run `pip install vllm`, or remove `engine` for transformers",
        )


def check_chat_template(task: Task, scorer: TextScorer) -> None:
    """Check that the tokenizer has a chat template if the task asks for it.

    Raises:
        EvaluationError: it has none.
    """
    if task.chat_template and not getattr(scorer.tokenizer, "chat_template", None):
        raise EvaluationError(
            f"task {task.name}: the base model's tokenizer has no chat template", hint="remove `chat_template: true`"
        )


@contextmanager
def saved_model(scorer: TextScorer) -> Iterator[Path]:
    """Write the model in a scorer with its tokenizer to a folder of its own, which vllm reads."""
    with tempfile.TemporaryDirectory(prefix="hubmerge-vllm-") as folder:
        scorer.model.save_pretrained(folder)
        scorer.tokenizer.save_pretrained(folder)
        yield Path(folder)


def vllm_model(folder: Path, scorer: TextScorer, seed: int) -> Any:
    """Return a model of vllm; its arithmetic is that of its kernels, in float32."""
    library: Any = importlib.import_module(VLLM)
    return library.LLM(
        model=str(folder), dtype="float32", seed=seed, max_model_len=scorer.max_tokens, trust_remote_code=False
    )
