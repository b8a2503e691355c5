"""Kill a process before its first change to the disk, before its second, and so on until it completes.

`python -m tests.localhub.crashing FOLDER` prints the number of kills. After each, the Hub must be intact and contain
all of a change or nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from itertools import count
from pathlib import Path

from hubmerge.localhub import pulls
from hubmerge.localhub.operations import Delete, Put
from hubmerge.localhub.records import FileEntry
from hubmerge.localhub.refnames import HEADS, TAGS
from hubmerge.localhub.site import Site
from tests.localhub.wholeness import check_whole

CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}
LARGE = b"large" * 1000


def large_file(site: Site) -> FileEntry:
    """Upload a large file."""
    received = site.store.receive()
    received.write(LARGE)
    sha256 = hashlib.sha256(LARGE).hexdigest()
    site.store.keep(received, sha256, len(LARGE))
    return FileEntry.large(sha256, len(LARGE))


def work(root: Path) -> None:
    """Run each kind of change once."""
    site = Site(root)
    old = site.registry.find("model", "local/old")
    assert old is not None
    old.apply(
        HEADS,
        "main",
        [
            Put("a.txt", FileEntry(site.store.add_blob(b"new"), 3)),
            Put("w.bin", large_file(site)),
            Delete("b.txt", False),
        ],
        title="all of it",
        message="",
        author="local",
    )
    old.create_ref(TAGS, "v1", old.resolve("main"))
    pulls.propose(old, "main", [Delete("a.txt", False)], title="proposed", message="", author="local", parent=None)
    old.change_settings(private=True)
    site.registry.create("model", "local/fresh", author="local")
    site.registry.move(old, "local/moved")
    gone = site.registry.find("model", "local/gone")
    assert gone is not None
    site.registry.delete(gone)
    site.close()


def die_before(step: int) -> None:
    """Kill this process before change number `step` (from 0) to the disk."""
    steps = count()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (event in CHANGES or writes) and next(steps) == step:
            os._exit(9)

    sys.addaudithook(hook)


def check(root: Path) -> None:
    """Check that the Hub is intact, and that it contains all of each change or nothing."""
    lengths = check_whole(root)
    assert ("local/old" in lengths) != ("local/moved" in lengths), lengths
    site = Site(root)
    for name in ("local/old", "local/moved"):
        repository = site.registry.find("model", name)
        if repository is not None:
            head = repository.resolve("main")
            committed = repository.commit(head).title == "all of it"
            expected = {"a.txt", "w.bin"} if committed else {"a.txt", "b.txt"}
            assert set(repository.tree(head)) == {".gitattributes"} | expected
            for number in pulls.numbers(repository):
                found = pulls.find(repository, number)
                assert (found.title, found.author) == ("proposed", "local")
                assert [commit.title for _, commit in pulls.commits(repository, found)] == ["proposed"]
    old_name = site.registry.find("model", "local/old")
    assert site.registry.new_id("model", "local/old") == (None if old_name is not None else "local/moved")
    site.close()
    assert list((root / "tmp").iterdir()) == []


def main(folder: Path) -> int:
    """Kill at every step, and return the number of steps."""
    # The kernel keeps what a killed process wrote; fsync matters only for power failures.
    os.fsync = lambda _: None  # type: ignore[assignment]
    start = folder / "start"
    site = Site(start)
    files = [Put(name, FileEntry(site.store.add_blob(b"old"), 3)) for name in ("a.txt", "b.txt")]
    for name in ("local/old", "local/gone"):
        site.registry.create("model", name, author="local").apply(
            HEADS, "main", files, title="files", message="", author="local"
        )
    site.close()
    for step in count():
        root = folder / "root"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(start, root)
        child = os.fork()
        if child == 0:
            die_before(step)
            work(root)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        check(root)
        if status == 0:
            return step
        assert status == 9, status
    raise AssertionError


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
