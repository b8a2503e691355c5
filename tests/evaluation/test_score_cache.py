"""The cache of scores: what is read back, what is ignored, and what its keys depend on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import save_file

from hubmerge.checkpoints import Checkpoint, SafetensorsReader, open_checkpoint
from hubmerge.checkpoints.formats.partial_file import create_partial_file
from hubmerge.checkpoints.matching.copies import CheckpointWithCopies
from hubmerge.evaluation.own_head import HeadFacts, OwnHead
from hubmerge.evaluation.score_cache import CACHE_VARIABLE, ScoreCache, is_score_cache_on
from hubmerge.evaluation.score_inputs import environment, files_digest, head_digest, rows_digest, weights_digest
from hubmerge.report.file_list import list_step_files
from hubmerge.report.report import MetricValue
from hubmerge.support import hashing
from hubmerge.support.hashing import file_digest

VALUES: dict[str, MetricValue] = {"perplexity": 12.1 / 3, "accuracy": 1, "f1": 1.0, "confusion": [[1, 2], [3, 4]]}


def stored(folder: Path) -> tuple[ScoreCache, Path]:
    cache = ScoreCache(folder / "scores")
    cache.put("model", "task", VALUES)
    (file,) = cache.folder.iterdir()
    return cache, file


def sealed(content: dict[str, Any]) -> str:
    return json.dumps({**content, "sha256": hashlib.sha256(json.dumps(content).encode()).hexdigest()})


def test_values_keep_their_order_and_their_types(tmp_path: Path) -> None:
    cache, _ = stored(tmp_path)
    found = cache.get("model", "task")
    assert found == VALUES
    assert [(name, type(value)) for name, value in found.items()] == [(name, type(VALUES[name])) for name in VALUES]
    assert cache.get("model", "other") is cache.get("other", "task") is cache.get("model task", "") is None


def test_a_damaged_file_is_ignored_and_written_anew(tmp_path: Path) -> None:
    cache, file = stored(tmp_path)
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert cache.get("model", "task") is None, place
        file.write_bytes(whole[:place])
        assert cache.get("model", "task") is None, place
    cache.put("model", "task", VALUES)
    assert file.read_bytes() == whole
    assert [*file.parent.iterdir()] == [file]


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"task": "other"},
        {"form": 0},
        {"form": None},
        {"scores": {}},
        {"scores": {"accuracy": "0.5"}},
        {"scores": {"accuracy": None}},
        {"scores": {"accuracy": True}},
        {"scores": [0.5]},
        {"more": 1},
    ],
)
def test_a_file_of_another_key_or_form_is_ignored(tmp_path: Path, change: dict[str, Any]) -> None:
    cache, file = stored(tmp_path)
    content = {"form": 1, "model": "model", "task": "task", "scores": {"accuracy": 0.5}}
    file.write_text(sealed(content), encoding="utf-8")
    assert cache.get("model", "task") == {"accuracy": 0.5}
    file.write_text(sealed({**content, **change}), encoding="utf-8")
    assert cache.get("model", "task") is None


@pytest.mark.parametrize("text", ["", "null", "[]", "1", '"sha256"', "{}", '{"sha256": 1}', "[" * 100_000, "\0", "NaN"])
def test_an_odd_file_is_ignored(tmp_path: Path, text: str) -> None:
    cache, file = stored(tmp_path)
    file.write_text(text, encoding="utf-8")
    assert cache.get("model", "task") is None


def test_what_is_in_the_way_is_set_aside(tmp_path: Path) -> None:
    cache, file = stored(tmp_path)
    file.unlink()
    (file / "inside").mkdir(parents=True)
    assert cache.get("model", "task") is None
    cache.put("model", "task", VALUES)
    assert cache.get("model", "task") == VALUES
    (tmp_path / "plain").write_text("a file", encoding="utf-8")
    other = ScoreCache(tmp_path / "plain")
    assert other.get("model", "task") is None
    other.put("model", "task", VALUES)
    assert other.get("model", "task") == VALUES


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.tensor(0.5)])
def test_values_that_no_report_holds_are_not_stored(tmp_path: Path, value: Any) -> None:
    cache = ScoreCache(tmp_path)
    cache.put("model", "task", {"accuracy": value})
    assert not [*tmp_path.iterdir()]


def test_the_number_of_files_is_bounded(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path, most=3)
    for number in range(8):
        cache.put("model", f"task {number}", VALUES)
        assert cache.get("model", f"task {number}") == VALUES
    assert len([*tmp_path.iterdir()]) == 3


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    assert is_score_cache_on()
    for value, on in (("", True), ("1", True), ("on", True), ("0", False), ("OFF", False), ("no ", False)):
        monkeypatch.setenv(CACHE_VARIABLE, value)
        assert is_score_cache_on() is on


def model(folder: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any] | None = None) -> Checkpoint:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config or {"model_type": "bert"}), encoding="utf-8")
    return open_checkpoint(folder, folder.name)


def test_the_digest_of_weights_depends_on_all_values(tmp_path: Path) -> None:
    one = {"a": torch.tensor([[1.0, 2.0], [0.0, 4.0]]), "b": torch.zeros(0)}
    first = weights_digest(model(tmp_path / "one", one))
    assert weights_digest(model(tmp_path / "equal", dict(one))) == first
    changed: list[dict[str, torch.Tensor]] = [
        {**one, "a": torch.tensor([[1.0, 2.0], [-0.0, 4.0]])},
        {**one, "a": one["a"].nextafter(torch.tensor(9.0))},
        {**one, "a": one["a"].half()},
        {**one, "a": one["a"].flatten()},
        {**one, "a": one["a"].T.contiguous()},
        {"c": one["a"], "b": one["b"]},
        {"a": one["a"]},
        {**one, "d": torch.zeros(0)},
    ]
    found = {weights_digest(model(tmp_path / str(row), tensors)) for row, tensors in enumerate(changed)}
    found.add(weights_digest(model(tmp_path / "config", one, {"model_type": "bert", "layer_norm_eps": 0.1})))
    assert len(found - {first}) == len(changed) + 1


def test_weight_files_are_read_once_for_the_cache_and_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = model(tmp_path / "written", {"a": torch.ones(2, 2)})
    read: list[Path] = []
    read_digest = hashing.read_digest

    def counted(path: Path, *arguments: Any) -> str:
        read.append(path)
        return read_digest(path, *arguments)

    monkeypatch.setattr(hashing, "read_digest", counted)
    monkeypatch.setattr(SafetensorsReader, "read", lambda *_: pytest.fail("a tensor was read"))
    weights_digest(written)
    file = tmp_path / "written" / "model.safetensors"
    assert list_step_files(file.parent)[file.name].sha256 == file_digest(file)
    assert read.count(file) == 1


def test_a_file_that_is_not_whole_is_digested_by_its_values(tmp_path: Path) -> None:
    whole = model(tmp_path / "whole", {"a": torch.ones(2, 2), "b": torch.zeros(3)})
    content = (tmp_path / "whole" / "model.safetensors").read_bytes()
    (tmp_path / "part").mkdir()
    create_partial_file(tmp_path / "part" / "model.safetensors", content[:-28], len(content))
    (tmp_path / "part" / "config.json").write_bytes((tmp_path / "whole" / "config.json").read_bytes())
    part = open_checkpoint(tmp_path / "part", fetch=lambda _, offset, length: content[offset : offset + length])
    before = weights_digest(part)
    assert part.whole_files is None
    part.prepare(["a"])
    assert weights_digest(part) == before
    copied = CheckpointWithCopies(whole, {"c": "a"})
    assert copied.whole_files is None
    assert weights_digest(copied) != weights_digest(whole)


def test_the_digest_of_a_base_model_covers_its_files(tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    for name in ("config.json", "tokenizer.json", "preprocessor_config.json", "1_Pooling/config.json"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    seen = {files_digest(tmp_path)}
    for number, name in enumerate(
        ("config.json", "tokenizer.json", "preprocessor_config.json", "1_Pooling/config.json")
    ):
        (tmp_path / name).write_text('{"changed": 1}', encoding="utf-8")
        seen.add(files_digest(tmp_path))
        assert len(seen) == number + 2
    (tmp_path / "special_tokens_map.json").write_text("{}", encoding="utf-8")
    last = files_digest(tmp_path)
    assert last not in seen
    for folder in (".git", "checkpoint-100"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.bin").write_bytes(b"1")
    assert files_digest(tmp_path) == last


def test_the_digest_of_a_head_covers_facts_and_values() -> None:
    facts = HeadFacts("cars", "ViTForImageClassification", {"id2label": {"0": "a", "1": "b"}}, 2)
    head = OwnHead(facts, lambda: {"classifier.weight": torch.ones(2, 3)})
    first = head_digest(head)
    assert head_digest(replace(head, facts=replace(facts, entry="renamed", known=False))) == first
    others = [
        None,
        replace(head, facts=replace(facts, labels=3)),
        replace(head, facts=replace(facts, config={"id2label": {"0": "b", "1": "a"}})),
        replace(head, read=lambda: {"classifier.weight": torch.zeros(2, 3)}),
    ]
    assert len({head_digest(one) for one in others} - {first}) == len(others)


def test_the_digest_of_rows_covers_columns_values_and_order() -> None:
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, 1]})
    first = rows_digest(rows)
    assert rows_digest(datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, 1]})) == first
    names = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["x", "y"])})
    others = [
        rows.select([0, 1]),
        rows.select([1, 0, 2]),
        rows.rename_column("label", "number"),
        rows.cast(names),
        datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, 0]}),
    ]
    assert len({rows_digest(one) for one in others} - {first}) == len(others)


def test_the_environment_names_device_dtype_and_libraries() -> None:
    found = environment("cpu")
    assert (found["device"], found["dtype"]) == ("cpu", "float32")
    assert {"torch", "transformers", "evaluate", "datasets", "lm_eval", "sentence_transformers", "code"} <= set(found)
    assert found["torch"] == torch.__version__
