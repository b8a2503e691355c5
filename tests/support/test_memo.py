"""The memo returns what was stored under a kind and a key, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubmerge.support import memo
from tests.support.stored import stored_answers

pytestmark = pytest.mark.usefixtures("empty_cache")


def test_an_answer_is_found_by_its_kind_and_key_only() -> None:
    assert memo.get("kind", b"question", int) is None
    memo.put("kind", b"question", {"a": [1, 2]})
    assert memo.get("kind", b"question", dict) == {"a": [1, 2]}
    assert memo.get("other", b"question", int) is None
    assert memo.get("kind", b"another question", int) is None
    assert len(stored_answers()) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b"{}"])
def test_a_damaged_file_counts_as_no_answer(damage: bytes) -> None:
    memo.put("kind", b"question", 1)
    stored_answers()[0].write_bytes(damage)
    assert memo.get("kind", b"question", int) is None
    memo.put("kind", b"question", 2)
    assert memo.get("kind", b"question", int) == 2


def test_a_cache_that_cannot_be_written_stores_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    memo.put("kind", b"question", 1)
    assert memo.get("kind", b"question", int) is None


def test_answers_of_another_version_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    memo.put("kind", b"question", 1)
    monkeypatch.setattr("hubmerge.support.memo._versions", lambda: "another")
    assert memo.get("kind", b"question", int) is None
