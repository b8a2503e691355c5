"""Files in a repo that the Hub itself would not accept, such as a card that an older version stored."""

from __future__ import annotations

from hubmerge.localhub import LocalHub
from hubmerge.localhub.operations import Put
from hubmerge.localhub.records import FileEntry
from hubmerge.localhub.refnames import HEADS


def plant(hub: LocalHub, repo: str, path: str, content: bytes) -> None:
    """Commit a file to the main branch of a model repo without any check."""
    repository = hub.site.registry.find("model", repo)
    assert repository is not None
    put = Put(path, FileEntry(hub.site.store.add_blob(content), len(content)))
    repository.apply(HEADS, "main", [put], title="planted", message="", author="local")
