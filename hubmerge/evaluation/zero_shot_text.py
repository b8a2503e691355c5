"""Zero-shot text classification: each class is a sentence, and the most fitting sentence is the predicted class.

A model for inference (NLI) gives the value of its class `entailment` for text and sentence. An embedder gives the
cosine between the embeddings of text and sentence. With several prompts the values are averaged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from hubmerge.checkpoints import Checkpoint
from hubmerge.evaluation.base_files import entailment_row
from hubmerge.evaluation.classes import check_finite, dataset_errors, read_classes, score_classes
from hubmerge.evaluation.embedder import EmbeddingScorer
from hubmerge.evaluation.metrics import MetricLoader, metric_named
from hubmerge.evaluation.sampling import choose_rows
from hubmerge.evaluation.task_keys import task_place
from hubmerge.evaluation.text_model import TextScorer
from hubmerge.evaluation.texts import read_texts
from hubmerge.report.report import MetricValue
from merge_recipes import Task


@dataclass(frozen=True, kw_only=True)
class PreparedZeroShotText(ABC):
    """Task with its texts, its true classes and the sentences of the classes."""

    name: str
    class_names: tuple[str, ...]
    labels: np.ndarray  # int64 (N,)
    texts: list[str]
    prompts: tuple[str, ...]
    metrics: dict[str, evaluate.Metric] = field(default_factory=dict)
    batch_size: int = 64

    @property
    def examples(self) -> int:
        """Number of scored texts."""
        return len(self.labels)

    def sentences(self, prompt: str) -> list[str]:
        """Return the sentence of each class."""
        return [prompt.replace("{}", name) for name in self.class_names]

    @abstractmethod
    def logits(self, scorer: Any) -> np.ndarray:
        """Return the value of each class for each text, float32 (N, C)."""

    def score(self, scorer: Any) -> dict[str, MetricValue]:
        """Return the metrics of the task for the model in the scorer.

        Raises:
            EvaluationError: the model's outputs are not finite, or a metric cannot be computed.
        """
        return score_classes(self.metrics, self.logits(scorer), self.labels)


class PreparedInference(PreparedZeroShotText):
    """Task for a model that says whether a text entails a sentence."""

    @torch.no_grad()
    def logits(self, scorer: TextScorer) -> np.ndarray:
        """Return the mean value of the class `entailment` over the prompts."""
        row = entailment_row(scorer.model.config.to_dict())
        pairs = [
            (text, sentence) for text in self.texts for prompt in self.prompts for sentence in self.sentences(prompt)
        ]
        size = self.batch_size if scorer.model.config.pad_token_id is not None else 1
        found = []
        for begin in range(0, len(pairs), size):
            texts, sentences = zip(*pairs[begin : begin + size], strict=True)
            tokens = scorer.tokenizer(
                list(texts), list(sentences), padding=size > 1, truncation="only_first", max_length=scorer.max_tokens,
                return_tensors="pt",
            )  # fmt: skip
            values = scorer.model(**{name: one.to(scorer.device) for name, one in tokens.items()}).logits[:, row]
            check_finite(values, scorer.label)
            found.append(values.float().cpu().numpy())
        shape = (len(self.texts), len(self.prompts), len(self.class_names))
        means: np.ndarray = np.concatenate(found).reshape(shape).mean(axis=1)
        return means


class PreparedBySimilarity(PreparedZeroShotText):
    """Task for an embedder."""

    def logits(self, scorer: EmbeddingScorer) -> np.ndarray:
        """Return the cosines with the mean embedding of each class's sentences."""
        texts = scorer.embed(self.texts, self.batch_size)
        classes = torch.stack([scorer.embed(self.sentences(one), self.batch_size) for one in self.prompts]).mean(dim=0)
        found = texts @ (classes / classes.norm(dim=-1, keepdim=True)).T
        check_finite(found, scorer.label)
        values: np.ndarray = found.numpy()
        return values


class ZeroShotTextClassification:
    """Task kind `zero-shot-text-classification`, for models of natural language inference, and for embedders."""

    name = "zero-shot-text-classification"

    def open_scorer(
        self, base_folder: Path, base: Checkpoint, *, identity: str, device: str = "cpu"
    ) -> TextScorer | EmbeddingScorer:
        """Return a scorer with the base model, in float32 on `device`."""
        if entailment_row(base.config) is None:
            return EmbeddingScorer(base_folder, base, self.name, identity=identity, device=device)
        return TextScorer(
            base_folder, base, AutoModelForSequenceClassification, self.name, identity=identity, device=device
        )

    def prepare(
        self,
        task: Task,
        rows: datasets.Dataset,
        scorer: TextScorer | EmbeddingScorer,
        cache_folder: Path,
        *,
        dataset_commit: str | None,
        batch_size: int = 64,
        load_metric: MetricLoader | None = None,
    ) -> PreparedZeroShotText:
        """Read labels and texts. Texts that are too long for the model are cut.

        Raises:
            EvaluationError: the task does not fit its dataset.
        """
        metrics = {name: metric_named(name, cache_folder, load_metric) for name in task.metrics}
        with dataset_errors(task.dataset, dataset_commit):
            texts = read_texts(rows, task.dataset, task_place(task))
            names, labels = read_classes(rows, task)
        chosen = choose_rows(len(labels), task.dataset, labels)
        if chosen is not None:
            texts, labels = [texts[row] for row in chosen], labels[chosen]
        kind = PreparedBySimilarity if isinstance(scorer, EmbeddingScorer) else PreparedInference
        return kind(
            name=task.name, class_names=names, labels=labels, texts=texts, prompts=task.prompts, metrics=metrics,
            batch_size=batch_size,
        )  # fmt: skip
