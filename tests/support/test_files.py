"""Files and folders appear whole under their name, or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hubmerge.errors import MachineError
from hubmerge.support.files import (
    atomic_file,
    make_folder,
    partial_path,
    remove_folder,
    replace_folder,
    start_flush,
    unique_partial_path,
    write_bytes_atomic,
    write_error,
    write_text_atomic,
)
from hubmerge.support.paths import is_inside

REWRITE = """
import sys
from pathlib import Path
from hubmerge.support.files import write_bytes_atomic
path = Path(sys.argv[1])
while True:
    for letter in b"abc":
        write_bytes_atomic(path, bytes([letter]) * (1 << 20))
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_has_its_name_only_after_the_block(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_file(path) as file:
        file.write(b"new")
        assert names(tmp_path) == [partial_path(path).name]
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_an_exception_keeps_the_old_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text_atomic(path, "old")

    def fail_in_the_block() -> None:
        with atomic_file(path) as file:
            file.write(b"new")
            raise KeyError

    with pytest.raises(KeyError):
        fail_in_the_block()
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["file"]


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", REWRITE, str(path)]) as process:
            while not path.exists():
                time.sleep(0.01)
            time.sleep(0.05)
            process.kill()
        content = path.read_bytes()
        assert content in {letter * (1 << 20) for letter in (b"a", b"b", b"c")}
        path.unlink()


def test_a_file_has_the_mode_and_the_temporary_name_that_are_asked_for(tmp_path: Path) -> None:
    path, temporary = tmp_path / "file", tmp_path / "elsewhere"
    with atomic_file(path, temporary=temporary, mode=0o600) as file:
        file.write(b"secret")
        assert names(tmp_path) == ["elsewhere"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert unique_partial_path(path) != unique_partial_path(path)


def test_a_finished_folder_replaces_an_older_one(tmp_path: Path) -> None:
    for content in ("old", "new"):
        finished = tmp_path / ".folder.partial"
        finished.mkdir()
        write_text_atomic(finished / "file", content)
        replace_folder(finished, tmp_path / "folder")
        assert (tmp_path / "folder" / "file").read_text(encoding="utf-8") == content
        assert names(tmp_path) == ["folder"]


def test_a_folder_is_removed_with_what_an_earlier_removal_left(tmp_path: Path) -> None:
    (tmp_path / ".folder.outdated" / "inner").mkdir(parents=True)
    (tmp_path / "folder").mkdir()
    write_bytes_atomic(tmp_path / "folder" / "file", b"content")
    for _ in range(2):
        remove_folder(tmp_path / "folder")
        assert names(tmp_path) == []


def test_a_folder_can_be_removed_through_a_name_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "tmp").mkdir()
    remove_folder(tmp_path / "folder", temporary=tmp_path / "tmp" / "removed")
    assert names(tmp_path) == ["tmp"]
    assert names(tmp_path / "tmp") == []


def test_parents_are_made_and_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file")


@pytest.mark.parametrize(
    ("number", "cause"),
    [(28, "not enough space for a file of 1,000 bytes"), (13, "no permission to write"), (5, "cannot write")],
)
def test_a_failed_write_names_the_cause_and_the_file(number: int, cause: str, tmp_path: Path) -> None:
    error = write_error(OSError(number, os.strerror(number)), tmp_path / "file", 1000)
    assert isinstance(error, MachineError)
    assert cause in error.message
    assert error.context.file == str(tmp_path / "file")


@pytest.mark.parametrize("file", ["", ".", "..", "a/../../b", "/a", "a\\b", "C:a", "a\nb", "a\x00b"])
def test_a_name_that_leaves_its_folder_is_not_inside(file: str) -> None:
    assert not is_inside(file)


@pytest.mark.parametrize("file", ["a", "a/b.safetensors", "./a", ".hidden", "a..b"])
def test_an_ordinary_name_is_inside(file: str) -> None:
    assert is_inside(file)


def test_a_flush_of_a_part_starts_without_changing_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("w+b") as stream:
        stream.write(b"x" * 10_000)
        stream.flush()
        start_flush(stream.fileno(), 4096, 4096)
    start_flush(-1, 0, 1)  # an error is that of the next write
    assert path.read_bytes() == b"x" * 10_000
