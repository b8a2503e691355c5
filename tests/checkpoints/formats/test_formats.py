"""Every format gives the same merged model, and every dtype is rounded once."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubmerge.errors import CheckpointError
from hubmerge.linalg import cast_once
from tests.checkpoints.families import base, make, save, save_state_dict, tuned
from tests.checkpoints.merging import Merged, merge, read_all
from tests.checks import every

FAMILY = "BertForSequenceClassification"


def sharded(model: torch.nn.Module, folder: Path) -> Path:
    save(model, folder, max_shard_size="5KB")
    assert (folder / "model.safetensors.index.json").is_file()
    return folder


def pickled(model: torch.nn.Module, folder: Path) -> Path:
    save(model, folder)
    values = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(values, folder / "pytorch_model.bin")
    return folder


def pickled_shards(model: torch.nn.Module, folder: Path) -> Path:
    save(model, folder)
    values = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places: dict[str, str] = {}
    for number in (1, 2):
        file = f"pytorch_model-{number:05d}-of-00002.bin"
        part = {name: value for index, (name, value) in enumerate(values.items()) if index % 2 == number - 1}
        torch.save(part, folder / file)
        places |= dict.fromkeys(part, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def older_pickle(model: torch.nn.Module, folder: Path) -> Path:
    folder = pickled(model, folder)
    values = torch.load(folder / "pytorch_model.bin")
    torch.save(values, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    return folder


FORMATS: dict[str, Callable[[torch.nn.Module, Path], Path]] = {
    "sharded": sharded,
    "pickled": pickled,
    "pickled shards": pickled_shards,
    "older pickle": older_pickle,
    "state dict": save_state_dict,
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("expected")
    tunings = [save(tuned(FAMILY, seed), folder / f"tuned{seed}") for seed in (1, 2)]
    return merge(folder, save(base(FAMILY), folder / "base"), tunings).values()


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_model(tmp_path: Path, expected: dict[str, torch.Tensor], kind: str) -> None:
    write = FORMATS[kind]
    merged = merge(
        tmp_path,
        write(make(FAMILY), tmp_path / "base"),
        [write(tuned(FAMILY, 1), tmp_path / "one"), save(tuned(FAMILY, 2), tmp_path / "two")],
    )
    found = merged.values()
    assert set(found) == set(expected)
    assert every(torch.equal(found[name], value) for name, value in expected.items())


NARROW = (torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


def cast(folder: Path, choose: Callable[[int, str], torch.dtype]) -> Path:
    values = load_file(folder / "model.safetensors")
    values = {name: value.to(choose(index, name)) for index, (name, value) in enumerate(sorted(values.items()))}
    save_file(values, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *NARROW], ids=str)
def test_the_arithmetic_is_float64_for_every_stored_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    """Values stored in a narrow dtype give the same model as when they are stored in float64."""
    narrow = [cast(save(tuned(FAMILY, seed, 0.1), tmp_path / f"{seed}"), lambda *_: dtype) for seed in (0, 1, 2)]
    wide = []
    for folder in narrow:
        target = tmp_path / f"{folder.name} wide"
        save(make(FAMILY), target)
        values = {name: value.to(torch.float64) for name, value in load_file(folder / "model.safetensors").items()}
        save_file(values, target / "model.safetensors", {"format": "pt"})
        wide.append(target)
    exact = merge(tmp_path / "wide", wide[0], wide[1:])
    merged = merge(tmp_path / "narrow", narrow[0], narrow[1:])
    for name, value in merged.values().items():
        assert value.dtype == dtype
        assert torch.equal(value.double(), cast_once(exact.values()[name], dtype).double()), name
    assert merged.stats.scale == exact.stats.scale
    if dtype != torch.float64:
        reported, measured = merged.rounding, _rounding(merged, exact)
        assert reported is not None
        assert reported == pytest.approx(measured, rel=1e-9)
        assert reported > 0.0


def _rounding(merged: Merged, exact: Merged) -> float:
    values, expected = merged.values(), exact.values()
    error = math.sqrt(sum(float(((values[name].double() - expected[name]) ** 2).sum()) for name in expected))
    return error / (exact.stats.accumulated_norm / exact.stats.scale)


@pytest.mark.parametrize("out_dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_mixed_dtypes_and_out_dtype(tmp_path: Path, out_dtype: torch.dtype) -> None:
    dtypes = (torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn)

    def cast_mixed(seed: int) -> Path:
        return cast(save(tuned(FAMILY, seed), tmp_path / f"{seed}"), lambda index, _: dtypes[(index + seed) % 4])

    folders = [cast_mixed(seed) for seed in (0, 1, 2)]
    assert {str(value.dtype) for value in read_all(folders[0]).values()} == set(map(str, dtypes))
    stored = merge(tmp_path / "stored", folders[0], folders[1:])
    before = read_all(folders[0])
    assert every(value.dtype == before[name].dtype for name, value in stored.values().items())
    exact = merge(tmp_path / "exact", folders[0], folders[1:], out_dtype=torch.float64)
    merged = merge(tmp_path / "out", folders[0], folders[1:], out_dtype=out_dtype)
    for name, value in merged.values().items():
        assert value.dtype == out_dtype
        assert torch.equal(value, cast_once(exact.values()[name], out_dtype))
    config = json.loads((merged.folder / "config.json").read_text())
    assert config["dtype"] == str(out_dtype).removeprefix("torch.")
    assert "torch_dtype" not in config


def test_a_change_below_the_precision_of_the_dtype_is_measured_as_rounding(tmp_path: Path) -> None:
    start = cast(save(base(FAMILY), tmp_path / "base"), lambda *_: torch.bfloat16)
    values = {name: value.double() for name, value in load_file(start / "model.safetensors").items()}
    small = save(make(FAMILY), tmp_path / "small")
    generator = torch.Generator().manual_seed(0)
    values = {
        name: value + 1e-6 * value.abs() * torch.rand(value.shape, generator=generator)
        for name, value in values.items()
    }
    save_file(values, small / "model.safetensors", {"format": "pt"})
    merged = merge(tmp_path, start, [small])
    assert merged.rounding == pytest.approx(1.0, abs=1e-3)
    assert every(torch.equal(value, read_all(start)[name]) for name, value in merged.values().items())
    wider = merge(tmp_path / "wider", start, [small], out_dtype=torch.float32)
    assert wider.rounding is not None
    assert wider.rounding < 0.1


def test_a_checkpoint_that_is_the_base_model_has_no_rounding(tmp_path: Path) -> None:
    merged = merge(tmp_path, save(base(FAMILY), tmp_path / "base"), [save(base(FAMILY), tmp_path / "same")])
    assert merged.rounding is None


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_8_bit_floats_are_rounded_to_the_nearest_once(dtype: torch.dtype) -> None:
    codes = torch.arange(256, dtype=torch.uint8).view(dtype).double()
    values = torch.unique(codes[codes.isfinite()])
    middles = (values[1:] + values[:-1]) / 2
    for offset in (2.0**-40, -(2.0**-40)):
        near = middles * (1 + offset)
        away = torch.where(torch.tensor(offset > 0), torch.maximum(values[1:].abs(), values[:-1].abs()), 0.0)
        toward = torch.minimum(values[1:].abs(), values[:-1].abs())
        expected = torch.where(torch.tensor(offset > 0), away, toward) * middles.sign()
        assert torch.equal(cast_once(near, dtype).double().abs(), expected.abs())
    assert torch.equal(cast_once(values, dtype).double(), values)


def test_a_value_that_overflows_an_8_bit_float_is_refused(tmp_path: Path) -> None:
    start = cast(save(base(FAMILY), tmp_path / "base"), lambda *_: torch.float8_e4m3fn)
    large = save(tuned(FAMILY, 1), tmp_path / "large")
    values = load_file(large / "model.safetensors")
    values["bert.encoder.layer.0.attention.self.query.bias"] += 1000.0
    save_file(values, large / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"query\.bias' does not fit into torch\.float8_e4m3fn: 16 of 16"):
        merge(tmp_path, start, [large])


def test_integer_buffers_and_tensors_of_no_checkpoint_are_kept(tmp_path: Path) -> None:
    start = save(base("CLIPModel"), tmp_path / "base")
    values = load_file(start / "model.safetensors")
    buffers = {
        "text_model.embeddings.position_ids": torch.arange(8).unsqueeze(0),
        "vision_model.embeddings.position_ids": torch.arange(5, dtype=torch.int32).unsqueeze(0),
    }
    save_file({**values, **buffers}, start / "model.safetensors", {"format": "pt"})
    from transformers import CLIPVisionModel

    save(tuned("CLIPModel", 1), tmp_path / "whole")
    tower = save(CLIPVisionModel.from_pretrained(tmp_path / "whole"), tmp_path / "tower")
    merged = merge(tmp_path, start, [tower])
    kept = {tensor.name: tensor.reason for tensor in merged.plan.kept}
    assert set(kept) == {name for name in {**values, **buffers} if not name.startswith("vision_model.")} | set(buffers)
    assert every(kept[name] == "position_ids is a buffer, not a parameter" for name in buffers)
    assert kept["text_projection.weight"] == "no checkpoint has text_projection"
    found = merged.values()
    for name in kept:
        assert torch.equal(found[name], {**values, **buffers}[name])
        assert found[name].dtype == {**values, **buffers}[name].dtype
