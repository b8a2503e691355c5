"""Causal language modelling: how well a model tells the next token of texts from those before it.

Perplexity = exp(-mean of log p(token | tokens before it)), over all tokens of all texts but each text's first; lower is
better. Accuracy = share of these tokens that the model holds the most probable; it is always taken, as the accuracy
matrix needs a share of which more is better.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import evaluate
import numpy as np
import torch
from transformers import AutoModelForCausalLM

from hubmerge.checkpoints import Checkpoint
from hubmerge.errors import EvaluationError
from hubmerge.evaluation.metrics import MetricLoader, metric_named
from hubmerge.evaluation.text_model import TextScorer
from hubmerge.evaluation.texts import Tokens, batches, check_prompts, padded, place_of, read_texts, tokenised
from hubmerge.report.report import MetricValue
from merge_recipes import Task

METRICS = ("accuracy", "perplexity")
MOST_VALUES = 1 << 27  # values of one batch's output: texts x tokens x vocabulary, 512 MiB of float32


@dataclass(frozen=True)
class PreparedCausalLM:
    """One task with the tokens of its texts."""

    name: str
    examples: int  # texts
    texts: tuple[Tokens, ...]  # pieces of texts, each of two tokens or more
    metrics: dict[str, evaluate.Metric] = field(default_factory=dict)
    batch_size: int = 64

    @property
    def class_names(self) -> tuple[str, ...]:
        """None: there are no classes."""
        return ()

    @torch.no_grad()
    def predictions(self, scorer: TextScorer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For every token but each text's first: its log probability, the most probable token, and the token.

        float64 (N,), int64 (N,), int64 (N,).

        Raises:
            EvaluationError: the model gives values that are not finite.
        """
        logs, guesses, truths = [], [], []
        most = max(1, MOST_VALUES // scorer.token_count)
        for batch in batches(self.texts, self.batch_size, most_cells=most):
            tokens, mask = padded([self.texts[number] for number in batch], 0, scorer.device)
            logits = scorer.model(input_ids=tokens, attention_mask=mask).logits[:, :-1]
            there = mask[:, 1:].bool()
            values, true = logits[there], tokens[:, 1:][there]
            # A row at a time would be slow, all rows in float64 large: the sum alone is taken in float64.
            log = torch.log_softmax(values.float(), dim=-1).gather(1, true[:, None])[:, 0]
            if not bool(torch.isfinite(log).all()):
                raise EvaluationError(
                    f"{scorer.label}: the model gives values that are not finite",
                    hint="its weights have grown too large or hold NaN; look at the scale and norms of its step",
                )
            logs.append(log.double().cpu().numpy())
            guesses.append(values.argmax(dim=-1).cpu().numpy())
            truths.append(true.cpu().numpy())
        return np.concatenate(logs), np.concatenate(guesses), np.concatenate(truths)

    def score(self, scorer: TextScorer) -> dict[str, MetricValue]:
        """Accuracy, and what else the task asks for, for the model that `scorer` holds.

        Raises:
            EvaluationError: the model gives values that are not finite.
        """
        logs, guesses, truths = self.predictions(scorer)
        values: dict[str, MetricValue] = {}
        for name, metric in self.metrics.items():
            inputs = (
                {"log_probabilities": logs} if name == "perplexity" else {"predictions": guesses, "references": truths}
            )
            values[name] = float(metric.compute(**inputs)[name])
        return values


class CausalLM:
    """The kind `causal-lm`, for base models that write texts from left to right."""

    name = "causal-lm"

    def open_scorer(
        self, base_folder: Path, base: Checkpoint, *, identity: str, device: str | torch.device = "cpu"
    ) -> TextScorer:
        """The base model with its head, in float32 on `device`."""
        return TextScorer(base_folder, base, AutoModelForCausalLM, self.name, identity=identity, device=device)

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
        """Read the texts and cut them into pieces that the model takes.

        Every piece is read by itself: its first token is not predicted.

        Raises:
            EvaluationError: the task does not fit its dataset, or asks for other metrics than these two.
        """
        where = place_of(task)
        check_prompts(task)
        unknown = next((name for name in task.metrics if name not in METRICS), None)
        if unknown is not None:
            raise EvaluationError(
                f"{where}: {self.name} has no metric {unknown!r}", hint=f"its metrics are {' and '.join(METRICS)}"
            )
        if task.class_names is not None:
            raise EvaluationError(f"{where}: {self.name} has no classes", hint="leave out the key class_names")
        texts = read_texts(rows, task.dataset, where)[: task.dataset.max_examples]
        pieces = tuple(_pieces(tokenised(scorer.tokenizer, texts, None), scorer.max_tokens))
        if not pieces:
            raise EvaluationError(f"{where}: no text has two tokens or more, so nothing is to be predicted")
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
