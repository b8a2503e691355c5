"""A published stream with signatures."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import pytest

from hubmerge.report.file_list import FileRecord
from hubmerge.report.report import RunReport
from tests.provenance.keys import Key, make_key
from tests.stage import Stage
from tests.verify.published import published


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return make_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def original(stage: Stage, key: Key, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Publish two signed steps, scored on one task."""
    from hubmerge.cli.main import main

    folder = tmp_path_factory.mktemp("signed")
    names = tuple(stage.towers)[:2]
    repo = f"local/{folder.name}"  # its own for each module that takes this fixture: their keys differ
    publish = {"repo": repo, "sign": {"key": str(key.private)}}
    recipe = stage.recipe(None, entries=names, publish=publish)
    recipe["evaluate"]["tasks"] = recipe["evaluate"]["tasks"][1:]
    assert main(["run", str(stage.write(folder, recipe)), "--quiet", "--work-dir", str(folder / "work")]) == 0
    return repo


def resealed(original: str, files: dict[str, bytes | None]) -> dict[str, bytes]:
    """Return changed files and the report with their digests, as a forger would seal it; None removes a file."""
    report = RunReport.from_json(published(original, "hubmerge.json").decode())
    listed = {name: record for name, record in report.all_files.items() if name not in files}
    changed = {name: content for name, content in files.items() if content is not None}
    listed |= {name: FileRecord(hashlib.sha256(data).hexdigest(), len(data)) for name, data in changed.items()}
    return {**changed, "hubmerge.json": dataclasses.replace(report, all_files=listed).to_json().encode()}


def build_of(statement: dict[str, Any]) -> dict[str, Any]:
    build: dict[str, Any] = statement["predicate"]["buildDefinition"]
    return build
