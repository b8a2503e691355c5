"""Streams merged with methods over moments: published, extended from the Hub alone, verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download

from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("method", ["wudi", "iso_c"])
def test_a_stream_is_published_extended_and_verified(
    stage: Stage, hubmerge: Command, tmp_path: Path, method: str
) -> None:
    repo = f"team/moments-{method.replace('_', '-')}"
    names = tuple(stage.towers)
    first = stage.recipe(repo, entries=names[:2], merge_method=method)
    status, _, errors = hubmerge("run", stage.write(tmp_path, first))
    assert status == 0, errors
    other = tmp_path / "other"
    other.mkdir()
    whole = stage.recipe(repo, merge_method=method)
    status, output, errors = hubmerge("run", stage.write(other, whole), "--work-dir", str(other / "work"))
    assert status == 0, errors
    status, output, errors = hubmerge("verify", repo)
    assert status == 0, output + errors
    report = json.loads(Path(hf_hub_download(repo, "hubmerge.json")).read_text(encoding="utf-8"))
    assert report["merge_method"] == method
    assert all(step["drift"] > 0.0 for step in report["steps"])
    card = Path(hf_hub_download(repo, "README.md")).read_text(encoding="utf-8")
    assert f"merge_method: {method}" in card
    assert "read out of sums over all task vectors" in card
