"""Text retrieval: how high a query ranks its documents among all documents, by the similarity of embeddings.

The values are those of InformationRetrievalEvaluator of sentence-transformers, with the prompts and the similarity of
the base model's repo.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.classes import dataset_errors
from hubmerge.evaluation.columns import check_numbers
from hubmerge.evaluation.embedder import EmbedderKind, EmbeddingScorer, evaluators
from hubmerge.evaluation.metrics import MetricLoader, finite_scores
from hubmerge.evaluation.retrieval_columns import DOCUMENT_IDS, IDS, QUERY_IDS, SCORE, check_ids, part_of
from hubmerge.evaluation.sampling import choose_rows
from hubmerge.evaluation.task_keys import check_embedder_keys, task_place
from hubmerge.evaluation.texts import read_column
from hubmerge.report.report import MetricValue
from merge_recipes import DatasetReference, Task

ReadSplit = Callable[[DatasetReference], datasets.Dataset]
"""Function that returns the rows of a split."""


@dataclass(frozen=True)
class PreparedRetrieval:
    """Queries, documents and which of them belong together."""

    name: str
    queries: dict[str, str]
    corpus: dict[str, str]
    relevant: dict[str, set[str]]
    metrics: tuple[str, ...]
    batch_size: int = 64
    class_names: tuple[str, ...] = ()

    @property
    def examples(self) -> int:
        """Number of queries."""
        return len(self.queries)

    def score(self, scorer: EmbeddingScorer) -> dict[str, MetricValue]:
        """Return the metrics of the task.

        Raises:
            EvaluationError: a value is not a number.
        """
        evaluator = evaluators().InformationRetrievalEvaluator(
            self.queries, self.corpus, self.relevant, batch_size=self.batch_size, write_csv=False
        )
        found = evaluator(scorer.sentences)
        similarity = scorer.sentences.similarity_fn_name
        return finite_scores({name: found[f"{similarity}_{name}"] for name in self.metrics}, scorer.label)


class TextRetrieval(EmbedderKind):
    """Task kind `text-retrieval`, for base models that sentence-transformers loads."""

    name = "text-retrieval"
    reads_splits = True
    """True: `prepare` receives a function that reads the rows of a split, in place of the rows."""

    def prepare(
        self,
        task: Task,
        rows: ReadSplit,
        scorer: EmbeddingScorer,  # noqa: ARG002 - as all kinds
        cache_folder: Path,  # noqa: ARG002
        *,
        dataset_commit: str | None,
        batch_size: int = 64,
        load_metric: MetricLoader | None = None,  # noqa: ARG002
    ) -> PreparedRetrieval:
        """Read queries and documents.

        `max_examples` chooses queries; all documents stay.

        Raises:
            EvaluationError: the task does not fit its dataset.
        """
        check_embedder_keys(task)
        source = task.dataset
        with dataset_errors(source, dataset_commit):
            read = _of_parts if source.corpus is not None else _of_pairs
            queries, corpus, relevant = read(task, rows)
        if not queries:
            raise EvaluationError(
                f"{task_place(task, source.rows)}: no query has a relevant document",
                hint="set `split` of the dataset to one with examples",
            )
        chosen = choose_rows(len(queries), source)
        if chosen is not None:
            names = list(queries)
            queries = {names[row]: queries[names[row]] for row in chosen}
        return PreparedRetrieval(
            task.name, queries, corpus, {name: relevant[name] for name in queries}, task.metrics, batch_size
        )


Parts = tuple[dict[str, str], dict[str, str], dict[str, set[str]]]


def _of_pairs(task: Task, read: ReadSplit) -> Parts:
    """Return the parts of a dataset whose rows are pairs: every document of a row is a document for all queries."""
    source, where = task.dataset, task_place(task)
    rows = read(source)
    asked = read_column(rows, source.query, "query", where)
    found = read_column(rows, source.positive, "positive", where)
    documents = {text: f"d{number}" for number, text in enumerate(dict.fromkeys(found))}
    numbers = {text: f"q{number}" for number, text in enumerate(dict.fromkeys(asked))}
    relevant: dict[str, set[str]] = {}
    for query, positive in zip(asked, found, strict=True):
        relevant.setdefault(numbers[query], set()).add(documents[positive])
    return _swapped(numbers), _swapped(documents), relevant


def _swapped(names: Mapping[str, str]) -> dict[str, str]:
    return {name: text for text, name in names.items()}


def _of_parts(task: Task, read: ReadSplit) -> Parts:
    """Return the parts of a dataset in the form of BEIR: documents, queries, and scores of pairs."""
    source, where = task.dataset, task_place(task)
    corpus = _texts(read(part_of(source, "corpus")), f"{where}: corpus")
    asked = _texts(read(part_of(source, "queries")), f"{where}: queries")
    with dataset_errors(source.rows, None):  # the scoreboard knows its commit
        relevant = _relevant(read(source.rows), asked, corpus, task_place(task, source.rows))
    return {name: text for name, text in asked.items() if name in relevant}, corpus, relevant


def _relevant(
    rows: datasets.Dataset, asked: Mapping[str, str], corpus: Mapping[str, str], where: str
) -> dict[str, set[str]]:
    """Return the relevant documents of each query, by their ids."""
    queries, documents = _ids(rows, QUERY_IDS, where), _ids(rows, DOCUMENT_IDS, where)
    scores: Sequence[Any] = [1] * len(queries)
    if SCORE in rows.features:
        check_numbers(rows.features, SCORE, "score", where)
        scores = read_column(rows, SCORE, "score", where, texts=False)
    relevant: dict[str, set[str]] = {}
    for query, document, score in zip(queries, documents, scores, strict=True):
        if float(score) <= 0:
            continue
        for name, known, part in ((query, asked, "queries"), (document, corpus, "corpus")):
            if name not in known:
                raise EvaluationError(
                    f"{where}: the split names {name!r}, which is not in {part}",
                    hint=f"set `dataset: {{{part}: ...}}` to the configuration with all of them",
                )
        relevant.setdefault(query, set()).add(document)
    return relevant


def _texts(rows: datasets.Dataset, where: str) -> dict[str, str]:
    """Return the texts by id; a title stands before its text."""
    names = _ids(rows, IDS, where)
    texts = read_column(rows, "text", "text", where)
    titles = rows.with_format(None)["title"][:] if "title" in rows.features else [None] * len(texts)
    joined = [f"{title} {text}".strip() if title else text for title, text in zip(titles, texts, strict=True)]
    return dict(zip(names, joined, strict=True))


def _ids(rows: datasets.Dataset, columns: Sequence[str], where: str) -> list[str]:
    column = check_ids(rows.features, columns, where)
    return [str(one) for one in rows.with_format(None)[column][:]]
