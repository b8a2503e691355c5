"""Tasks for lm-eval, and a small language model to score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from hubmerge.evaluation import task_kind_named
from merge_recipes import DatasetReference, Task
from merge_recipes.language_task import with_dataset
from tests.evaluation.small_text import WORDS, opened, save_model, save_tokenizer, sentences

KIND = task_kind_named("lm-eval")
QUESTIONS = sentences(12, seed=1)
ROWS: dict[str, Any] = {
    "question": QUESTIONS,
    "choices": [["cat", "dog bird"] if number % 2 else ["sun", "tree"] for number in range(12)],
    "answer": [number % 2 for number in range(12)],
    "text": sentences(12, seed=2),
    "word": [WORDS[number] for number in range(12)],
}
CHOICE = {
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
}
ROLLING = {"test_split": "test", "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "text"}
GENERATE = {
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "word",
    "generation_kwargs": {"until": ["."], "max_gen_toks": 4},
    "metric_list": [{"metric": "exact_match"}, {"metric": "chrf"}],
}


def make_task(definition: Any, **keys: Any) -> Task:
    values = {"name": "mine", "kind": "lm-eval", "dataset": {"path": "me/questions"}, "task": definition, **keys}
    return Task.model_validate_json(json.dumps(with_dataset(values)))


class Rows:
    """Reader of splits, which remembers what was asked for."""

    def __init__(self, rows: Any = ROWS) -> None:
        self.rows = rows
        self.asked: list[tuple[str, str]] = []

    def __call__(self, source: DatasetReference) -> datasets.Dataset:
        self.asked.append((source.path, source.split))
        return datasets.Dataset.from_dict(self.rows)


def save_llama(folder: Path, seed: int = 0, *, positions: int = 64) -> None:
    save_model(folder, "LlamaForCausalLM", seed, max_position_embeddings=positions, tie_word_embeddings=False)
    save_tokenizer(folder, around=False)


def open_llama(folder: Path) -> Any:
    return KIND.open_scorer(folder, opened(folder), identity="0" * 40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("llama")
    for seed, name in enumerate(("base", "other")):
        save_llama(root / name, seed)
    return root


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Any:
    return open_llama(folder / "base")


def prepare(task: Task, scorer: Any, rows: Any = None) -> Any:
    return KIND.prepare(task, rows or Rows(), scorer, Path(), dataset_commit=None, batch_size=4)
