"""Text classification: the predicted class is the one with the highest output of the model's head.

The head is that of the base model, or the own head of a checkpoint. Its classes are those in the config. A task may
have some of them only; then only these are compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import datasets
import evaluate
import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from hubmerge.checkpoints import Checkpoint
from hubmerge.evaluation.classes import check_finite, dataset_errors, read_classes, score_classes
from hubmerge.evaluation.head_rows import rows_of_head
from hubmerge.evaluation.head_scorer import TextHeadScorer
from hubmerge.evaluation.labels import have_order
from hubmerge.evaluation.metrics import MetricLoader, metric_named
from hubmerge.evaluation.own_head import OwnHead
from hubmerge.evaluation.sampling import choose_rows
from hubmerge.evaluation.task_keys import check_prompts, task_place
from hubmerge.evaluation.text_model import TextScorer
from hubmerge.evaluation.texts import Tokens, batches, padded, read_texts, tokenized
from hubmerge.report.report import MetricValue
from hubmerge.support.progress import count_work
from merge_recipes import Task


@dataclass(frozen=True)
class PreparedTextClassification:
    """Task with its tokens, its true classes and the rows of the head for its classes."""

    name: str
    class_names: tuple[str, ...]
    labels: np.ndarray  # int64 (N,)
    texts: tuple[Tokens, ...]
    head_rows: tuple[int, ...]  # of every class of the task
    metrics: dict[str, evaluate.Metric] = field(default_factory=dict)
    batch_size: int = 64

    @property
    def examples(self) -> int:
        """Number of scored texts."""
        return len(self.labels)

    @torch.no_grad()
    def logits(self, scorer: TextScorer | TextHeadScorer) -> np.ndarray:
        """Return the outputs of the model in the scorer, float32 (N, C).

        Raises:
            EvaluationError: the model's outputs are not finite.
        """
        model = scorer.model
        padding = model.config.pad_token_id
        found = np.empty((len(self.texts), len(self.class_names)), dtype=np.float32)
        # Some models read the last token before the padding. Without a padding token, texts cannot be padded.
        for batch in batches(self.texts, self.batch_size if padding is not None else 1, equal=padding is None):
            tokens, mask = padded([self.texts[number] for number in batch], padding or 0, scorer.device)
            values = model(input_ids=tokens, attention_mask=mask).logits[:, list(self.head_rows)]
            check_finite(values, scorer.label)
            found[batch] = values.float().cpu().numpy()
            count_work(len(batch))
        return found

    def score(self, scorer: TextScorer | TextHeadScorer) -> dict[str, MetricValue]:
        """Return the metrics of the task for the model in the scorer.

        Raises:
            EvaluationError: the model's outputs are not finite, or a metric cannot be computed.
        """
        return score_classes(self.metrics, self.logits(scorer), self.labels)


class TextClassification:
    """Task kind `text-classification`, for models with a classification head."""

    name = "text-classification"

    def open_scorer(
        self, base_folder: Path, base: Checkpoint, *, identity: str, device: str | torch.device = "cpu"
    ) -> TextScorer:
        """Return a scorer with the base model and its head, in float32 on `device`."""
        return TextScorer(
            base_folder, base, AutoModelForSequenceClassification, self.name, identity=identity, device=device
        )

    def open_head_scorer(
        self, base_folder: Path, base: Checkpoint, head: OwnHead, *, identity: str, device: str | torch.device = "cpu"
    ) -> TextHeadScorer:
        """Return a scorer for the head of a checkpoint, in float32 on `device`."""
        return TextHeadScorer(base_folder, base, head, identity=identity, device=device)

    def prepare(
        self,
        task: Task,
        rows: datasets.Dataset,
        scorer: TextScorer | TextHeadScorer,
        cache_folder: Path,
        *,
        dataset_commit: str | None,
        batch_size: int = 64,
        load_metric: MetricLoader | None = None,
    ) -> PreparedTextClassification:
        """Read labels and texts, and find the classes of the task in the head.

        Texts that are too long for the model are cut.

        Raises:
            EvaluationError: the task does not fit its dataset or the head.
        """
        where = task_place(task)
        check_prompts(task)
        metrics = {name: metric_named(name, cache_folder, load_metric) for name in task.metrics}
        with dataset_errors(task.dataset, dataset_commit):
            texts = read_texts(rows, task.dataset, where)
            names, labels = read_classes(rows, task)
            head_rows = rows_of_head(
                scorer, names, where, ordered=have_order(rows.features, task.dataset.label, task.class_names)
            )
        chosen = choose_rows(len(labels), task.dataset, labels)
        if chosen is not None:
            texts, labels = [texts[row] for row in chosen], labels[chosen]
        return PreparedTextClassification(
            name=task.name,
            class_names=names,
            labels=labels,
            texts=tuple(tokenized(scorer.tokenizer, texts, scorer.max_tokens)),
            head_rows=head_rows,
            metrics=metrics,
            batch_size=batch_size,
        )
