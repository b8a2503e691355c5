"""Rows that the datasets library prepared earlier, compared with their digests before they are read."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import datasets
import pyarrow

from hubmerge.support.damage import LOGGER
from hubmerge.support.files import write_text_atomic
from hubmerge.support.hashing import check_once, file_digest

RECORD = ".hubmerge-sha256"
"""Ending of the file beside an Arrow file that has its digest."""

Load = Callable[[datasets.DownloadMode | None], datasets.Dataset]
"""Loads the rows; with a mode, prepares them again from the files of the dataset."""


def checked_rows(load: Load) -> datasets.Dataset:
    """Return rows whose Arrow files are those that were prepared here; others are prepared again.

    The files of the dataset themselves are compared with the listing of the Hub before they are read.

    Args:
        load: the function that loads the rows.
    """
    began = time.time()
    try:
        rows = load(None)
        problem = _problem(rows, began)
    except (pyarrow.ArrowException, OSError) as error:
        # pyarrow raises OSError itself, without a number, for a damaged header.
        if not isinstance(error, pyarrow.ArrowException) and (type(error) is not OSError or error.errno is not None):
            raise
        problem = f"an Arrow file in the cache of datasets cannot be read ({str(error).splitlines()[0]})"
    if problem is not None:
        LOGGER.warning("%s: the rows are prepared again", problem)
        rows = load(datasets.DownloadMode.REUSE_CACHE_IF_EXISTS)
        for file in _files(rows):
            _record(file)
    return rows


def _problem(rows: datasets.Dataset, began: float) -> str | None:
    """Return why the Arrow files of rows cannot be read, None if they can; new files get their digests recorded."""
    for file in _files(rows):
        record = file.with_name(file.name + RECORD)
        if file.stat().st_mtime >= began - 2.0:
            _record(file)
        elif not record.is_file():
            if not os.access(file.parent, os.W_OK):
                LOGGER.warning("%s cannot be checked: its folder, which another program filled, is read-only", file)
                continue
            return f"{file} was prepared by another program or version"
        else:
            expected = record.read_text(encoding="ascii", errors="replace").strip()
            try:
                check_once(f"rows {expected}", [file], partial(_compare, file, expected))
            except ValueError:
                return f"{file} does not have the digest that was recorded"
    return None


def _files(rows: datasets.Dataset) -> list[Path]:
    return [Path(str(file["filename"])) for file in rows.cache_files]


def _record(file: Path) -> None:
    """Write the digest beside a file, unless the folder cannot be written, such as a cache that many people share."""
    with suppress(OSError):
        write_text_atomic(file.with_name(file.name + RECORD), file_digest(file) + "\n")


def _compare(file: Path, expected: str) -> None:
    if file_digest(file) != expected:
        raise ValueError(str(file))
