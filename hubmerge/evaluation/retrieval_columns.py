"""Parts and columns of data sets for retrieval, in the form of BEIR."""

from __future__ import annotations

from collections.abc import Sequence

import datasets

from hubmerge.errors import EvaluationError
from merge_recipes import DatasetReference

IDS = ("_id", "id")
QUERY_IDS = ("query-id", "query_id")
DOCUMENT_IDS = ("corpus-id", "corpus_id")
SCORE = "score"


def check_ids(features: datasets.Features, columns: Sequence[str], where: str) -> str:
    """Return the column with the ids of queries or documents.

    Args:
        features: the columns of a dataset in the form of BEIR.
        columns: the names that the column may have.
        where: the task and its dataset, for messages.

    Raises:
        EvaluationError: there is no column of such a name.
    """
    found = next((name for name in columns if name in features), None)
    if found is None:
        raise EvaluationError(
            f"{where}: no column {' or '.join(columns)} in the dataset; its columns: {', '.join(features)}",
            hint="remove `corpus` for a dataset whose rows are pairs of texts, or choose one in the form of BEIR",
        )
    return found


def part_of(source: DatasetReference, part: str) -> DatasetReference:
    """Return the reference to the documents or the queries of a dataset: a configuration with a split of its name."""
    name = source.corpus if part == "corpus" else source.queries
    return source.model_copy(update={"name": name, "split": name, "cast": {}})
