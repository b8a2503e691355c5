"""Digests of files are computed once while size and timestamps are unchanged."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from hubmerge.support import hashing
from hubmerge.support.hashing import LARGE_BYTES, file_digest
from tests.support.stored import stored_answers

pytestmark = pytest.mark.usefixtures("empty_cache")


def settled(path: Path, content: bytes) -> Path:
    """Write a file and set its times to long ago."""
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18))
    return path


def test_an_unchanged_large_file_is_read_once_for_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubmerge.support.hashing.SETTLING_NS", 0)
    file, small = settled(tmp_path / "file", bytes(LARGE_BYTES)), settled(tmp_path / "small", b"small")
    digests = [file_digest(file), file_digest(small)]
    assert digests == [hashlib.sha256(path.read_bytes()).hexdigest() for path in (file, small)]
    assert len(stored_answers()) == 1
    hashing._content_digest.cache_clear()
    opened, real = [], Path.open

    def open_and_count(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_and_count)
    assert [file_digest(file), file_digest(small)] == digests
    assert file not in opened
    assert small in opened


def test_a_file_with_restored_time_and_size_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubmerge.support.hashing.SETTLING_NS", 0)
    file = settled(tmp_path / "file", bytes(LARGE_BYTES))
    before = file_digest(file)
    settled(file, b"1" * LARGE_BYTES)
    assert file_digest(file) == hashlib.sha256(b"1" * LARGE_BYTES).hexdigest() != before


def test_the_digest_of_a_file_written_just_now_is_not_stored(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(LARGE_BYTES))
    file_digest(tmp_path / "file")
    assert not stored_answers()


def test_the_digest_of_a_file_that_changes_during_reading_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubmerge.support.hashing.SETTLING_NS", 0)
    file = settled(tmp_path / "file", bytes(LARGE_BYTES))
    real = hashing._stamp
    seen = iter([real(file), (0, 0, LARGE_BYTES, 1, 1)])
    monkeypatch.setattr(hashing, "_stamp", lambda _: next(seen))
    file_digest(file)
    assert not stored_answers()


@pytest.mark.parametrize("answer", [None, 3, "short"])
def test_a_damaged_digest_is_computed_again(answer: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubmerge.support.hashing.SETTLING_NS", 0)
    file = settled(tmp_path / "file", bytes(LARGE_BYTES))
    before = file_digest(file)
    stored_answers()[0].write_text(json.dumps({"answer": answer}))
    hashing._content_digest.cache_clear()
    assert file_digest(file) == before
