"""Sentence similarity: the rank correlation between the cosines of embeddings and the scores of people.

The value is that of EmbeddingSimilarityEvaluator of sentence-transformers.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import datasets

from hubmerge.evaluation.classes import dataset_errors
from hubmerge.evaluation.columns import check_numbers
from hubmerge.evaluation.embedder import EmbedderKind, EmbeddingScorer, evaluators
from hubmerge.evaluation.metrics import MetricLoader, finite_scores
from hubmerge.evaluation.sampling import choose_rows
from hubmerge.evaluation.task_keys import check_embedder_keys, task_place
from hubmerge.evaluation.texts import read_column
from hubmerge.report.report import MetricValue
from merge_recipes import Task


@dataclass(frozen=True)
class PreparedSimilarity:
    """Pairs of sentences with their scores."""

    name: str
    first: list[str]
    second: list[str]
    scores: list[float]
    metrics: tuple[str, ...]
    batch_size: int = 64
    class_names: tuple[str, ...] = ()

    @property
    def examples(self) -> int:
        """Number of pairs."""
        return len(self.scores)

    def score(self, scorer: EmbeddingScorer) -> dict[str, MetricValue]:
        """Return the rank correlation, and other metrics of the task.

        Raises:
            EvaluationError: a value is not a number, as for scores that are all equal.
        """
        evaluator = evaluators().EmbeddingSimilarityEvaluator(
            self.first, self.second, self.scores, batch_size=self.batch_size, main_similarity="cosine",
            similarity_fn_names=["cosine"], write_csv=False,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # equal values have no correlation: the result is NaN
            found = evaluator(scorer.sentences)
        return finite_scores({name: found[f"{name}_cosine"] for name in self.metrics}, scorer.label)


class SentenceSimilarity(EmbedderKind):
    """Task kind `sentence-similarity`, for base models that sentence-transformers loads."""

    name = "sentence-similarity"

    def prepare(
        self,
        task: Task,
        rows: datasets.Dataset,
        scorer: EmbeddingScorer,  # noqa: ARG002 - as all kinds
        cache_folder: Path,  # noqa: ARG002
        *,
        dataset_commit: str | None,
        batch_size: int = 64,
        load_metric: MetricLoader | None = None,  # noqa: ARG002
    ) -> PreparedSimilarity:
        """Read the pairs of sentences and their scores.

        Raises:
            EvaluationError: the task does not fit its dataset.
        """
        where, source = task_place(task), task.dataset
        check_embedder_keys(task)
        with dataset_errors(task.dataset, dataset_commit):
            first = read_column(rows, source.sentence1, "sentence1", where)
            second = read_column(rows, source.sentence2, "sentence2", where)
            check_numbers(rows.features, source.score, "score", where)
            scores = [float(one) for one in read_column(rows, source.score, "score", where, texts=False)]
        chosen = choose_rows(len(scores), source)
        order = range(len(scores)) if chosen is None else [int(row) for row in chosen]
        return PreparedSimilarity(
            task.name,
            [first[row] for row in order],
            [second[row] for row in order],
            [scores[row] for row in order],
            task.metrics,
            batch_size,
        )
