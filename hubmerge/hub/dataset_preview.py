"""Columns, size and labels of a dataset, read without downloading it.

Of Parquet files the footers are read, and the label column if it is small. Of other files the first rows are read. A
preview is remembered for its commit, whose content never changes.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import IO, Any

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import HfFileSystem
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from hubmerge.evaluation.casting import cast_preview
from hubmerge.evaluation.preview import DatasetPreview
from hubmerge.hub.client import api, endpoint
from hubmerge.hub.datasets import load_rows, read_dataset
from hubmerge.hub.failures import status_of
from hubmerge.hub.offline import is_offline
from hubmerge.support import interrupts, memo
from merge_recipes import DatasetReference

FIRST_ROWS = 16
MAX_FOOTERS = 32
"""Number of Parquet files of a split whose footers are read; a split of more files is downloaded first."""

MAX_LABEL_BYTES = 8 << 20
"""Size of the label columns that are read; larger ones are checked after the download."""

MAX_LABELS = 20_000
_NO_ROUTE = frozenset({404, 405, 501})


def preview_dataset(dataset: DatasetReference, commit: str | None) -> DatasetPreview:
    """Return what is known of the split of a task before it is downloaded.

    Args:
        dataset: the dataset of the task.
        commit: the commit; for a local folder the digest of its content, or None to remember nothing.

    Raises:
        DatasetError: the dataset, the subset or the split is missing, not accessible or not readable.
    """
    if not dataset.is_local:
        if is_offline():  # a run reads the rows from the cache
            return _preview_of_rows(load_rows(dataset, commit), dataset)
        _check_access(dataset, commit)
    key = _key(dataset, commit)
    known = memo.get("dataset-preview", key, DatasetPreview) if commit is not None else None
    if known is not None:
        return cast_preview(known, dataset)
    found = _read(dataset, commit)
    if commit is not None:
        memo.put("dataset-preview", key, found)
    return cast_preview(found, dataset)


def _key(dataset: DatasetReference, commit: str | None) -> bytes:
    place = "" if dataset.is_local else dataset.path
    parts = [place, commit, dataset.name, dataset.split, dataset.label, importlib.metadata.version("datasets")]
    return json.dumps(parts).encode()


def _check_access(dataset: DatasetReference, commit: str | None) -> None:
    """Ask the Hub whether the token may read the dataset, also if its preview is remembered."""

    def ask(path: str, _: dict[str, Any]) -> None:
        try:
            api().auth_check(path, repo_type="dataset")
        except (GatedRepoError, RepositoryNotFoundError):
            raise
        except HfHubHTTPError as error:
            if status_of(error) not in _NO_ROUTE:
                raise

    read_dataset(dataset, commit, ask)


def _read(dataset: DatasetReference, commit: str | None) -> DatasetPreview:
    def read(path: str, options: dict[str, Any]) -> DatasetPreview:
        builder = datasets.load_dataset_builder(path, dataset.name, **options)
        files = getattr(builder.config, "data_files", None) or {}
        splits = [str(name) for name in files] or list(builder.info.splits or ())
        if not splits:
            splits = list(builder.as_streaming_dataset())
        spec = "+".join(splits) if dataset.split == "all" else dataset.split
        _check_split(spec, splits)
        parts = [_read_split(builder, name, files, dataset.label) for name in splits if _names(spec, name)]
        return _sliced(parts, spec, dataset.label)

    return read_dataset(dataset, commit, read)


def _check_split(spec: str, splits: Sequence[str]) -> None:
    """Refuse what the library refuses when it loads the rows: names of other splits, and blanks around names."""
    if any(part != part.strip() for part in spec.split("+")):
        raise ValueError(f"Unrecognized instruction format: {spec}")
    datasets.ReadInstruction.from_spec(spec).to_absolute(dict.fromkeys(splits, 1 << 30))


def _names(spec: str, split: str) -> bool:
    """Return True if a specification such as `test[:50%]+train` reads from a split."""
    return any(part.partition("[")[0].partition("(")[0] == split for part in spec.split("+"))


@dataclass(frozen=True)
class _Split:
    """One split. `labels` has the label of every row, None for a row without one."""

    name: str
    features: datasets.Features
    rows: int | None = None
    labels: list[Any] | None = None
    empty: dict[str, int] = field(default_factory=dict)


def _sliced(splits: Sequence[_Split], spec: str, label: str) -> DatasetPreview:
    """Return the preview of the rows that a specification selects from splits."""
    features = splits[0].features.to_dict()
    sizes = {split.name: split.rows for split in splits}
    if any(rows is None for rows in sizes.values()):
        return DatasetPreview(features)
    selected = datasets.ReadInstruction.from_spec(spec).to_absolute(sizes)
    rows = sum(part.to - part.from_ for part in selected)
    by_name = {split.name: split for split in splits}
    whole = rows == sum(size or 0 for size in sizes.values())
    empty = {name: count for split in splits for name, count in split.empty.items()} if whole else {}
    if any(split.labels is None for split in splits):
        return DatasetPreview(features, rows, empty=empty)
    labels = [value for part in selected for value in (by_name[part.splitname].labels or ())[part.from_ : part.to]]
    missing = labels.count(None)
    if missing:
        empty = {**empty, label: missing}
    return DatasetPreview(features, rows, _distinct(labels), empty)


def _distinct(labels: Iterable[Any]) -> list[Any] | None:
    found = sorted({label for label in labels if label is not None})
    return found if len(found) <= MAX_LABELS else None


def _read_split(builder: datasets.DatasetBuilder, name: str, files: Any, label: str) -> _Split:
    paths = [str(path) for path in files.get(name, ())] if files else []
    if paths and all(path.endswith(".parquet") for path in paths):
        return _read_parquet(builder, name, paths, label)
    stream = builder.as_streaming_dataset(name)
    features = stream.features
    plain = stream.decode(enable=False) if features is not None else stream
    first = list(islice(plain, FIRST_ROWS))
    if features is None:
        features = datasets.Dataset.from_list(first).features
    rows = None if len(first) == FIRST_ROWS else len(first)
    labels = [row.get(label) for row in first] if rows is not None and label in features else None
    return _Split(name, features, rows, labels if labels is None or _are_plain(labels) else None)


def _read_parquet(builder: datasets.DatasetBuilder, name: str, paths: Sequence[str], label: str) -> _Split:
    declared = builder.info.features
    footers = [_footer(path) for path in paths[: MAX_FOOTERS if len(paths) <= MAX_FOOTERS else 1]]
    schema = footers[0].schema.to_arrow_schema()
    stored = datasets.Features.from_arrow_schema(schema)
    features = datasets.Features({column: (declared or stored).get(column, stored[column]) for column in stored})
    if len(footers) < len(paths):
        split = (builder.info.splits or {}).get(name)
        return _Split(name, features, split.num_examples if split is not None else None)
    rows = sum(footer.num_rows for footer in footers)
    labels = None
    if label in schema.names and _holds_classes(schema.field(label).type):
        size = sum(_column_bytes(footer, label) for footer in footers)
        if size <= MAX_LABEL_BYTES:
            labels = [value for path in paths for value in _read_column(path, label)]
    return _Split(name, features, rows, labels, dict(_empty(footers)))


def _holds_classes(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_integer(kind) or types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind)
    )


def _open(path: str) -> IO[bytes]:
    """Open a file of a dataset; of a file on the Hub only the ranges that are read are requested."""
    interrupts.check()
    if path.startswith("hf://"):
        stream: IO[bytes] = HfFileSystem(endpoint=endpoint()).open(path, "rb", cache_type="none")
        return stream
    opened: IO[bytes] = fsspec.open(path, "rb").open()
    return opened


def _footer(path: str) -> pq.FileMetaData:
    with _open(path) as stream:
        return pq.ParquetFile(stream).metadata


def _read_column(path: str, column: str) -> list[Any]:
    with _open(path) as stream:
        values: list[Any] = pq.ParquetFile(stream).read(columns=[column])[column].to_pylist()
        return values


def _chunks(footer: pq.FileMetaData) -> Iterator[pq.ColumnChunkMetaData]:
    for group in range(footer.num_row_groups):
        for column in range(footer.num_columns):
            yield footer.row_group(group).column(column)


def _column_bytes(footer: pq.FileMetaData, name: str) -> int:
    return sum(chunk.total_compressed_size for chunk in _chunks(footer) if chunk.path_in_schema == name)


def _empty(footers: Sequence[pq.FileMetaData]) -> Iterator[tuple[str, int]]:
    """Yield the number of rows without a value, by column, as the footers count them."""
    counts: dict[str, int] = {}
    for footer in footers:
        for chunk in _chunks(footer):
            if chunk.is_stats_set and chunk.statistics.has_null_count and "." not in chunk.path_in_schema:
                name = chunk.path_in_schema
                counts[name] = counts.get(name, 0) + chunk.statistics.null_count
    yield from ((name, count) for name, count in counts.items() if count)


def _are_plain(labels: Iterable[Any]) -> bool:
    return all(label is None or isinstance(label, (bool, int, str)) for label in labels)


def _preview_of_rows(rows: datasets.Dataset, dataset: DatasetReference) -> DatasetPreview:
    """Return the preview of rows that are on this machine."""
    labels: list[Any] | None = None
    if dataset.label in rows.column_names:
        labels = rows.with_format(None)[dataset.label][:]
        labels = labels if labels is not None and _are_plain(labels) else None
    found = DatasetPreview(rows.features.to_dict(), len(rows), None if labels is None else _distinct(labels))
    missing = 0 if labels is None else labels.count(None)
    return replace(found, empty={dataset.label: missing}) if missing else found
