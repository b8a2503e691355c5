"""Check of all files of a Hub against their names."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hubmerge.localhub.objects import git_oid
from hubmerge.localhub.records import folder_oids
from hubmerge.localhub.refnames import HEADS, TAGS
from hubmerge.localhub.site import Site


def check_whole(root: Path) -> dict[str, int]:
    """Read every ref, commit, tree and file of every repo, and check every name against the bytes.

    Returns:
        The number of commits on main of each repo.
    """
    site = Site(root)
    lengths = {}
    try:
        for repository, settings in site.registry.all("model"):
            assert repository.ref(HEADS, "main") is not None
            for commit_id in [*repository.refs(HEADS).values(), *repository.refs(TAGS).values()]:
                history = list(repository.history(commit_id))
                assert history[-1][1].title == "initial commit"
                for found, commit in history:
                    assert commit.id == found
                    tree = repository.tree(found)
                    assert folder_oids(tree)[""] == commit.tree
                    for entry in tree.values():
                        if entry.sha256:
                            content = site.store.lfs_path(entry.sha256).read_bytes()
                            assert hashlib.sha256(content).hexdigest() == entry.sha256
                        else:
                            content = site.store.blob_path(entry.oid).read_bytes()
                            assert git_oid("blob", content) == entry.oid
                        assert len(content) == entry.size
            lengths[settings.id] = len(list(repository.history(repository.resolve("main"))))
        for folder in ("blob", "lfs"):
            for path in (root / "objects" / folder).glob("*/*"):
                content = path.read_bytes()
                expected = git_oid("blob", content) if folder == "blob" else hashlib.sha256(content).hexdigest()
                assert path.name == expected
    finally:
        site.close()
    return lengths
