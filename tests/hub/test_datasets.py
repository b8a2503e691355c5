"""Rows of datasets, and metrics that are loaded by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from huggingface_hub import HfApi
from PIL import Image

from hubmerge.errors import DatasetError, EvaluationError
from hubmerge.evaluation.metrics import compute_metric, metric_named
from hubmerge.hub.datasets import load_metric, load_rows
from hubmerge.hub.prepared_rows import RECORD
from merge_recipes import DatasetReference

NEVER = pytest.fail


def load(path: str, subset: str | None, split: str, commit: str | None, **options: Any) -> datasets.Dataset:
    """Load the rows of a split."""
    return load_rows(DatasetReference(path=path, name=subset, split=split), commit, **options)


@pytest.fixture
def published(repo_name: Callable[..., str], tmp_path: Path) -> tuple[str, str]:
    """Publish a dataset with one Parquet split, and return the repo and its commit."""
    repo = repo_name("things")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    pictures = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "green")]
    rows = datasets.Dataset.from_dict({"image": pictures, "label": [0, 1, 1]}, features=features)
    (tmp_path / "repo" / "data").mkdir(parents=True)
    rows.to_parquet(tmp_path / "repo" / "data" / "test-00000-of-00001.parquet")
    (tmp_path / "repo" / "README.md").write_text(
        "---\nconfigs:\n- config_name: small\n  data_files:\n  - split: test\n    path: data/test-*\n---\n"
    )
    api = HfApi()
    api.create_repo(repo, repo_type="dataset")
    info = api.upload_folder(repo_id=repo, repo_type="dataset", folder_path=tmp_path / "repo")
    return repo, info.oid


def test_rows_come_at_the_commit(published: tuple[str, str]) -> None:
    repo, commit = published
    HfApi().upload_file(path_or_fileobj=b"# changed", path_in_repo="README.md", repo_id=repo, repo_type="dataset")
    rows = load(repo, "small", "test", commit)
    assert rows.column_names == ["image", "label"]
    assert rows.features["label"].names == ["a", "b"]
    assert len(rows) == 3


def test_what_is_missing_is_named(published: tuple[str, str], repo_name: Callable[..., str]) -> None:
    repo, commit = published
    with pytest.raises(DatasetError, match=r"no split 'train'; expected one of: .*test"):
        load(repo, "small", "train", commit)
    with pytest.raises(DatasetError, match=r"no subset 'large'; expected one of: .*small"):
        load(repo, "large", "test", commit)
    missing = repo_name("nowhere")
    with pytest.raises(DatasetError, match=f"dataset {missing}: no dataset of this name"):
        load(missing, None, "test", None, sleep=NEVER)
    with pytest.raises(DatasetError, match="the commit no longer exists"):
        load(repo, None, "test", "0" * 40, sleep=NEVER)


def test_a_repo_without_data(repo_name: Callable[..., str]) -> None:
    repo = repo_name("empty")
    HfApi().create_repo(repo, repo_type="dataset")
    HfApi().upload_file(path_or_fileobj=b"# nothing", path_in_repo="README.md", repo_id=repo, repo_type="dataset")
    with pytest.raises(DatasetError, match=r"no data files|cannot be read"):
        load(repo, None, "test", None)


def test_a_local_folder(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"label": ["x", "y"]}).to_parquet(tmp_path / "test.parquet")
    assert load(str(tmp_path), None, "test", "sha256:00")["label"][:] == ["x", "y"]
    with pytest.raises(DatasetError, match="no folder at"):
        load(str(tmp_path / "gone"), None, "test", None)


def test_two_local_folders_of_one_name(tmp_path: Path) -> None:
    """The datasets library identifies a folder by its name and card, and not by its files."""
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n    path: data/test-*\n---\n"
    for number, commit in ((2, "sha256:" + "a" * 64), (5, "sha256:" + "b" * 64), (7, None)):
        folder = tmp_path / str(number) / "things"
        (folder / "data").mkdir(parents=True)
        rows = datasets.Dataset.from_dict({"label": list(range(number))})
        rows.to_parquet(folder / "data" / "test-00000-of-00001.parquet")
        (folder / "README.md").write_text(card)
        for _ in range(2):
            assert load(str(folder), None, "test", commit)["label"] == list(range(number))


def test_a_folder_that_looks_like_the_repo_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "me" / "things").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match="would be read instead of the Hub"):
        load("me/things", None, "test", None)


METRIC = """
import datasets
import evaluate


class Halves(evaluate.Metric):
    def _info(self):
        value = datasets.Value("int64")
        features = datasets.Features({"predictions": value, "references": value})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {"halves": sum(p == r for p, r in zip(predictions, references)) / 2}
"""


def test_a_metric_from_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "halves").mkdir()
    (tmp_path / "halves" / "halves.py").write_text(METRIC)
    name = str(tmp_path / "halves")
    monkeypatch.setenv("HUBMERGE_TRUSTED_METRICS", f"me/other, {name}")
    metric = metric_named(name, tmp_path / "cache", load_metric)
    assert compute_metric(metric, "halves", np.eye(3, dtype=np.float32), np.arange(3)) == {"halves": 1.5}


def test_a_metric_that_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="metric 'no_such_metric_here': cannot be loaded"):
        load_metric("no_such_metric_here", tmp_path)


def test_a_gated_dataset(published: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    repo, commit = published
    HfApi().update_repo_settings(repo, repo_type="dataset", gated="auto")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(DatasetError, match="gated"):
        load(repo, "small", "test", commit)


def test_damaged_prepared_rows_are_prepared_again(published: tuple[str, str], caplog: pytest.LogCaptureFixture) -> None:
    repo, commit = published
    first = load(repo, "small", "test", commit)
    expected = [row["label"] for row in first]
    file = Path(first.cache_files[0]["filename"])
    content = file.read_bytes()
    assert not caplog.records
    del first
    for damaged in (content[:200] + bytes([content[200] ^ 1]) + content[201:], b"", content[:-40]):
        file.unlink()
        file.write_bytes(damaged)
        os.utime(file, (1, 1))
        assert [row["label"] for row in load(repo, "small", "test", commit)] == expected
        assert "the rows are prepared again" in caplog.text
        caplog.clear()
    load(repo, "small", "test", commit)
    assert not caplog.records


def test_rows_that_another_program_prepared_are_not_read(
    published: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    repo, commit = published
    other = datasets.load_dataset(repo, "small", split="test", revision=commit)
    file = Path(other.cache_files[0]["filename"])
    os.utime(file, (1, 1))
    del other
    load(repo, "small", "test", commit)
    assert "was prepared by another program" in caplog.text


def test_rows_are_read_where_no_digest_can_be_recorded(published: tuple[str, str]) -> None:
    repo, commit = published
    first = load(repo, "small", "test", commit)
    record = Path(first.cache_files[0]["filename"] + RECORD)
    record.unlink()
    record.mkdir()
    os.utime(record.with_name(record.name.removesuffix(RECORD)), (1, 1))
    assert [row["label"] for row in load(repo, "small", "test", commit)] == [0, 1, 1]
