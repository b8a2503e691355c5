"""The Hub of the fixture `tests/fixtures/stream-0.1.0.tar.xz`, with a command line that uses it."""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile

from hubmerge.localhub import LocalHub
from hubmerge.report.form import NEW_KEYS
from hubmerge.support.names import parse_history_file
from tests.run_launcher import RunLauncher

ARCHIVE = Path(__file__).resolve().parent / "fixtures" / "stream-0.1.0.tar.xz"
METHODS = ("opcm", "ties", "task_arithmetic")
NAMED_AFTER_THE_REPO = {"README.md", "hubmerge.yaml", "hubmerge.lock.yaml", "hubmerge.json", ".gitattributes"}
ADDED = {"hubmerge.intoto.json", "hubmerge.cdx.json", "report.html"}  # files that version 0.1.0 did not write
VARIES = {"recipe_digest", "versions", "seconds", "digest", "version", "all_files", "seal", *NEW_KEYS}
PICTURE = "accuracy_matrix.png"  # its bytes depend on the version of matplotlib


class OlderHub:
    """The Hub of version 0.1.0 on a port of its own, and a command line pointed at it."""

    def __init__(self, folder: Path, hub: LocalHub) -> None:
        self.folder = folder
        self.api = HfApi(endpoint=hub.endpoint, token=hub.token)
        places = {"HF_HOME": str(folder / "home"), "XDG_CACHE_HOME": str(folder / "cache")}
        self._launcher = RunLauncher({"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, **places})

    def hubmerge(self, *arguments: str | Path, status: int = 0) -> str:
        """Run the command line in a process, check its exit status and return all output."""
        with tempfile.NamedTemporaryFile(dir=self.folder) as output:
            path = Path(output.name)
            self._launcher.start(*arguments, output=path, cache=self.folder / "home" / "hub")
            done = self._launcher.wait()
            text = path.read_text(encoding="utf-8")
        assert done == status, text
        return text

    def close(self) -> None:
        """End the process of the command line."""
        self._launcher.close()

    def read(self, repo: str, name: str) -> str:
        """Return a text file of a repo."""
        return Path(self.api.hf_hub_download(repo, name, cache_dir=self.folder / "reports")).read_text(encoding="utf-8")

    def files(self, repo: str, revision: str) -> dict[str, str]:
        """Return the content digests of a revision's files, without those that name the repo or are new."""
        found = {}
        for entry in self.api.list_repo_tree(repo, revision=revision, recursive=True):
            new = entry.path in ADDED or parse_history_file(entry.path) is not None
            if isinstance(entry, RepoFile) and not new and entry.path not in NAMED_AFTER_THE_REPO | {PICTURE}:
                found[entry.path] = entry.lfs.sha256 if entry.lfs else entry.blob_id
        return found

    def report(self, repo: str) -> Any:
        """Return the report of a repo, without what differs between runs of one stream."""
        return _without_varying(json.loads(self.read(repo, "hubmerge.json")))


def _without_varying(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_varying(inner) for key, inner in value.items() if key not in VARIES}
    return [_without_varying(inner) for inner in value] if isinstance(value, list) else value


@contextmanager
def older_hub(folder: Path) -> Iterator[OlderHub]:
    """Serve the Hub of the fixture from a folder."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    with LocalHub(folder / "hub") as hub, closing(OlderHub(folder, hub)) as older:
        yield older
