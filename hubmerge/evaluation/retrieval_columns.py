"""Parts and columns of data sets for retrieval, in the form of BEIR."""

from __future__ import annotations

from merge_recipes import DatasetReference

CORPUS_ID = "_id"
QUERY_IDS = ("query-id", "query_id")
DOCUMENT_IDS = ("corpus-id", "corpus_id")
SCORE = "score"


def part_of(source: DatasetReference, part: str) -> DatasetReference:
    """Return the reference to the documents or the queries of a dataset: a configuration with a split of its name."""
    name = source.corpus if part == "corpus" else source.queries
    return source.model_copy(update={"name": name, "split": name, "cast": {}})
