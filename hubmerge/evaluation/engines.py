"""Engines that run language models in tasks: transformers in this process, or vllm where it is installed."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.harness_quiet import replaced
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
        # Keys of a repo's own file, such as a temperature without sampling, can keep the model from being written.
        own = scorer.model.generation_config
        plain = GenerationConfig(
            bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id
        )
        with replaced(scorer.model, "generation_config", plain):
            scorer.model.save_pretrained(folder)
        scorer.tokenizer.save_pretrained(folder)
        with beside_model(scorer):
            yield Path(folder)


def vllm_options(scorer: TextScorer, seed: int) -> dict[str, Any]:
    """Return options of a model of vllm: its arithmetic is that of its kernels, in float32."""
    return {"dtype": "float32", "seed": seed, "max_model_len": scorer.max_tokens, "trust_remote_code": False}


def vllm_model(folder: Path, scorer: TextScorer, seed: int) -> Any:
    """Return a model of vllm."""
    library: Any = importlib.import_module(VLLM)
    return library.LLM(model=str(folder), **vllm_options(scorer, seed))


@contextmanager
def beside_model(scorer: TextScorer) -> Iterator[None]:
    """Keep the model in a scorer in main memory, because vllm reserves most of the device; free what vllm used."""
    device = scorer.model.device
    scorer.model.to("cpu")
    _free_device()
    try:
        yield
    finally:
        _free_device()
        scorer.model.to(device)


def _free_device() -> None:
    gc.collect()  # models of vllm have cycles, and end their processes when they are collected
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
