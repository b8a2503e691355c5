"""Causal language modeling: prediction of each token of a text from the tokens before it.

- Perplexity = exp(-mean of log p(token | tokens before it)), over all tokens but the first of each text; lower is
  better.
- Accuracy = share of these tokens to which the model gives the highest probability. It is always computed, because the
  accuracy matrix needs a share of which more is better.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import evaluate
import numpy as np
import torch

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.classes import check_finite, dataset_errors
from hubmerge.evaluation.metrics import MetricLoader, metric_named
from hubmerge.evaluation.sampling import choose_rows
from hubmerge.evaluation.task_keys import check_no_classes, check_prompts, check_text_metrics, task_place
from hubmerge.evaluation.text_model import CausalKind, TextScorer
from hubmerge.evaluation.texts import Tokens, batches, padded, read_texts, tokenized
from hubmerge.report.report import MetricValue
from hubmerge.support.progress import count_work
from merge_recipes import Task

MOST_VALUES = 1 << 27
"""Largest number of values in the output of a batch, texts x tokens x vocabulary: 512 MiB of float32."""


@dataclass(frozen=True)
class PreparedCausalLM:
    """Task with the tokens of its texts."""

    name: str
    examples: int  # texts
    texts: tuple[Tokens, ...]  # pieces of texts with two tokens or more
    metrics: dict[str, evaluate.Metric] = field(default_factory=dict)
    batch_size: int = 64

    @property
    def class_names(self) -> tuple[str, ...]:
        """Empty: the task has no classes."""
        return ()

    @torch.no_grad()
    def predictions(self, scorer: TextScorer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predict every token but the first of each text.

        Returns:
            The log probability of the token, float64 (N,); the most probable token, int64 (N,); the token, int64 (N,).

        Raises:
            EvaluationError: the model's outputs are not finite.
        """
        logs, guesses, truths = [], [], []
        most = max(1, MOST_VALUES // scorer.token_count)
        for batch in batches(self.texts, self.batch_size, most_cells=most):
            tokens, mask = padded([self.texts[number] for number in batch], 0, scorer.device)
            logits = scorer.model(input_ids=tokens, attention_mask=mask).logits[:, :-1]
            there = mask[:, 1:].bool()
            values, true = logits[there], tokens[:, 1:][there]
            # Row by row would be slow, and all rows in float64 large, so only the sum is in float64.
            log = torch.log_softmax(values.float(), dim=-1).gather(1, true[:, None])[:, 0]
            check_finite(log, scorer.label)
            logs.append(log.double().cpu().numpy())
            guesses.append(values.argmax(dim=-1).cpu().numpy())
            truths.append(true.cpu().numpy())
            count_work(len(batch))
        return np.concatenate(logs), np.concatenate(guesses), np.concatenate(truths)

    def score(self, scorer: TextScorer) -> dict[str, MetricValue]:
        """Return the accuracy and the other metrics of the task for the model in the scorer.

        Raises:
            EvaluationError: the model's outputs are not finite.
        """
        logs, guesses, truths = self.predictions(scorer)
        values: dict[str, MetricValue] = {}
        for name, metric in self.metrics.items():
            inputs = (
                {"log_probabilities": logs} if name == "perplexity" else {"predictions": guesses, "references": truths}
            )
            values[name] = float(metric.compute(**inputs)[name])
        return values


class CausalLM(CausalKind):
    """Task kind `causal-lm`, for base models that generate text."""

    name = "causal-lm"

    def prepare(
        self,
        task: Task,
        rows: datasets.Dataset,
        scorer: TextScorer,
        cache_folder: Path,
        *,
        dataset_commit: str | None,
        batch_size: int = 64,
        load_metric: MetricLoader | None = None,
    ) -> PreparedCausalLM:
        """Read the texts and cut them into pieces that fit the model.

        The pieces are independent: the first token of a piece is not predicted.

        Raises:
            EvaluationError: the task does not fit its dataset, or has other metrics than these two.
        """
        where = task_place(task)
        check_prompts(task)
        check_text_metrics(task)
        check_no_classes(task)
        with dataset_errors(task.dataset, dataset_commit):
            texts = read_texts(rows, task.dataset, where)
            chosen = choose_rows(len(texts), task.dataset)
            texts = texts if chosen is None else [texts[row] for row in chosen]
            pieces = tuple(_pieces(tokenized(scorer.tokenizer, texts, None), scorer.max_tokens))
            if not pieces:
                raise EvaluationError(
                    f"{where}: every text has fewer than 2 tokens, so there is nothing to predict",
                    hint="set `dataset: {text: COLUMN}` of the task to a column of longer texts",
                )
        names = dict.fromkeys(("accuracy", *task.metrics))
        return PreparedCausalLM(
            name=task.name,
            examples=len(texts),
            texts=pieces,
            metrics={name: metric_named(name, cache_folder, load_metric) for name in names},
            batch_size=batch_size,
        )


def _pieces(texts: Sequence[Tokens], limit: int) -> Iterator[Tokens]:
    for text in texts:
        for begin in range(0, len(text), limit):
            piece = text[begin : begin + limit]
            if len(piece) > 1:
                yield piece
