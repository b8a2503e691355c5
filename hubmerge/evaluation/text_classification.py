"""Text classification: a text belongs to the class for which the model's head gives the highest value.

One head serves all tasks of a stream. Its classes are those that the base model's config names; a task may have only
some of them, and then only those are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import evaluate
import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from hubmerge.checkpoints import Checkpoint
from hubmerge.checkpoints.planning.heads import class_names as classes_of
from hubmerge.errors import EvaluationError
from hubmerge.evaluation.labels import letters, read_labels
from hubmerge.evaluation.metrics import MetricLoader, compute_metric, metric_named
from hubmerge.evaluation.text_model import TextScorer
from hubmerge.evaluation.texts import Tokens, batches, check_prompts, padded, place_of, read_texts, tokenised
from hubmerge.report.report import MetricValue
from merge_recipes import Task


@dataclass(frozen=True)
class PreparedTextClassification:
    """One task with its tokens, true classes and the rows of the head that stand for its classes."""

    name: str
    class_names: tuple[str, ...]
    labels: np.ndarray  # int64 (N,)
    texts: tuple[Tokens, ...]
    head_rows: tuple[int, ...]  # of every class of the task
    metrics: dict[str, evaluate.Metric] = field(default_factory=dict)
    batch_size: int = 64

    @property
    def examples(self) -> int:
        """How many texts are scored."""
        return len(self.labels)

    @torch.no_grad()
    def logits(self, scorer: TextScorer) -> np.ndarray:
        """float32 (N, C) for the model that `scorer` holds.

        Raises:
            EvaluationError: the model gives values that are not finite.
        """
        model = scorer.model
        padding = model.config.pad_token_id
        found = np.empty((len(self.texts), len(self.class_names)), dtype=np.float32)
        # Some models read the last token that is no padding: without a token for it, nothing may be padded.
        for batch in batches(self.texts, self.batch_size if padding is not None else 1, equal=padding is None):
            tokens, mask = padded([self.texts[number] for number in batch], padding or 0, scorer.device)
            values = model(input_ids=tokens, attention_mask=mask).logits[:, list(self.head_rows)]
            if not bool(torch.isfinite(values).all()):
                raise EvaluationError(
                    f"{scorer.label}: the model gives values that are not finite",
                    hint="its weights have grown too large or hold NaN; look at the scale and norms of its step",
                )
            found[batch] = values.float().cpu().numpy()
        return found

    def score(self, scorer: TextScorer) -> dict[str, MetricValue]:
        """Every metric of the task for the model that `scorer` holds.

        Raises:
            EvaluationError: the model gives values that are not finite, or a metric cannot be computed.
        """
        logits = self.logits(scorer)
        values: dict[str, MetricValue] = {}
        for name, metric in self.metrics.items():
            values |= compute_metric(metric, name, logits, self.labels)
        return values


class TextClassification:
    """The kind `text-classification`, for base models with a head for classes."""

    name = "text-classification"

    def open_scorer(
        self, base_folder: Path, base: Checkpoint, *, identity: str, device: str | torch.device = "cpu"
    ) -> TextScorer:
        """The base model with its head, in float32 on `device`."""
        return TextScorer(
            base_folder, base, AutoModelForSequenceClassification, self.name, identity=identity, device=device
        )

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
    ) -> PreparedTextClassification:
        """Read labels and texts, and find the task's classes in the head.

        Texts that are longer than the model takes are cut.

        Raises:
            EvaluationError: the task does not fit its dataset or the base model's head.
        """
        where = place_of(task)
        check_prompts(task)
        metrics = {name: metric_named(name, cache_folder, load_metric) for name in task.metrics}
        texts = read_texts(rows, task.dataset, where)
        names, labels = read_labels(rows, task.dataset.label, task.class_names, where)
        if len(names) < 2:
            raise EvaluationError(f"{where}: classification needs two classes or more, there is {len(names)}")
        head_rows = find_head_rows(
            classes_of(scorer.model.config.to_dict()), scorer.model.config.num_labels, names, where
        )
        count = task.dataset.max_examples
        return PreparedTextClassification(
            name=task.name,
            class_names=names,
            labels=labels[:count],
            texts=tuple(tokenised(scorer.tokenizer, texts[:count], scorer.max_tokens)),
            head_rows=head_rows,
            metrics=metrics,
            batch_size=batch_size,
        )


def find_head_rows(head: Sequence[str] | None, count: int, names: Sequence[str], where: str) -> tuple[int, ...]:
    """The row of the head for every class of a task.

    `head` are the names of the head's `count` classes, None if its config has none: then the task must have as many
    classes, in the head's order. Case, blanks and marks do not matter in names.

    Raises:
        EvaluationError: the head lacks a class.
    """
    if head is None:
        if count != len(names):
            raise EvaluationError(
                f"{where}: the task has {len(names)} classes, the base model's head has {count} without names",
                hint="a head for more classes than a task has must name them, in id2label of its config.json",
            )
        return tuple(range(count))
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(head):
        rows.setdefault(letters(name), []).append(row)
    for name in names:
        if len(rows.get(letters(name), ())) != 1:
            known = ", ".join(head[:8]) + (", ..." if len(head) > 8 else "")
            raise EvaluationError(
                f"{where}: the base model's head has no class {name!r}, or several; its classes: {known}",
                hint="give class_names as the head has them, in the order of the dataset's labels",
            )
    return tuple(rows[letters(name)][0] for name in names)
