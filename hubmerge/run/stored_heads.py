"""Heads of earlier steps, taken from the work folder or the published step before their checkpoints are opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hubmerge.checkpoints import Checkpoint, SafetensorsReader
from hubmerge.evaluation.own_head import HeadFacts, OwnHead
from hubmerge.hub import fetch
from hubmerge.plan.own_heads import OwnHeads
from hubmerge.stream.stream import Stream
from hubmerge.support.hashing import file_digest
from hubmerge.support.names import head_files


class StoredHeads(OwnHeads):
    """The heads of a stream; those of finished steps are read from the work folder or the published step."""

    def __init__(self, stream: Stream, base: Checkpoint, folder: Path, *, published: bool) -> None:
        """Prepare to look for heads.

        Args:
            stream: The stream.
            base: Its base model.
            folder: The work folder of evaluation, where a run keeps heads.
            published: True to use the heads of the published step.
        """
        super().__init__(stream, base)
        self._folder, self._published = folder, published

    def _find(self, name: str) -> OwnHead | None:
        facts = self._stored(name) if name in self.entries else None
        if facts is None and name in self.entries and self._published and fetch_head(self._stream, name, self._folder):
            facts = self._stored(name)
        if facts is None:
            found = super()._find(name)
            return None if found is None else OwnHead(found.facts, lambda: self._values(name) or found.read())

        def read() -> Mapping[str, torch.Tensor]:
            values = self._values(name)
            found = OwnHeads._find(self, name) if values is None else None
            return found.read() if found is not None else values or {}

        return OwnHead(HeadFacts.of(name, facts), read)

    def _stored(self, name: str) -> dict[str, Any] | None:
        """Return the description of a head in the work folder, None if it is missing, damaged or of another commit."""
        tensors, described = (self._folder / file for file in head_files(name))
        locked = self._stream.lock.models[self.entries.index(name)]
        try:
            facts: dict[str, Any] = json.loads(described.read_text(encoding="utf-8"))
            same = facts["commit"] == locked.commit and facts["model"] == str(locked.reference)
            return facts if same and facts["sha256"] == file_digest(tensors) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _values(self, name: str) -> dict[str, torch.Tensor] | None:
        """Return the values of a head in the work folder, None if they are not there."""
        if self._stored(name) is None:
            return None
        reader = SafetensorsReader(self._folder / head_files(name)[0])
        try:
            return {tensor: reader.read(info) for tensor, info in reader.header.tensors.items()}
        finally:
            reader.close()


def fetch_head(stream: Stream, name: str, folder: Path) -> bool:
    """Download the head of an entry from the published step into a folder; return False if it is not there."""
    target = stream.target
    if target is None or target.head is None:
        return False
    for file in head_files(name):
        content = fetch.read_checked(target.repo, target.head, file)
        if content is None:
            return False
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    return True
