"""Files and open checkpoints that several processes use."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from hubmerge.checkpoints import Checkpoint, SafetensorsWriter, TensorSpec, open_checkpoint
from hubmerge.errors import MachineError
from tests.checks import every


def test_several_writers_write_one_file(tmp_path: Path) -> None:
    values = {name: torch.arange(float(size)) for name, size in (("a", 3), ("b", 5), ("c", 4))}
    specs = [TensorSpec(name, value.dtype, tuple(value.shape)) for name, value in values.items()]
    with SafetensorsWriter(tmp_path / "alone.safetensors", specs) as writer:
        for name, value in values.items():
            writer.write(name, value)
        alone = writer.commit()
    path = tmp_path / "shared.safetensors"
    with SafetensorsWriter(path, specs) as first:
        first.write("b", values["b"])
        with SafetensorsWriter(path, specs, attach=True) as other:
            other.write("a", values["a"])
            other.write("c", values["c"])
            written = other.export_written()
        with SafetensorsWriter(path, specs, attach=True):
            pass
        with pytest.raises(ValueError, match="2 tensors were not written"):
            first.commit()
        with pytest.raises(ValueError, match="written twice"):
            first.import_written({"b": ""})
        first.import_written(written)
        shared = first.commit()
    assert path.read_bytes() == (tmp_path / "alone.safetensors").read_bytes()
    assert shared.digests == alone.digests
    with pytest.raises(MachineError):
        SafetensorsWriter(tmp_path / "not-created.safetensors", specs, attach=True)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_open_checkpoint_can_be_pickled(tmp_path: Path, suffix: str) -> None:
    values = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}
    folder = tmp_path / "model"
    folder.mkdir()
    if suffix == "bin":
        torch.save(values, folder / "pytorch_model.bin")
    else:
        from safetensors.torch import save_file

        save_file(values, folder / "model.safetensors")
    checkpoint = open_checkpoint(folder, "it")
    checkpoint.read("a")
    sent: Sequence[Checkpoint] = [pickle.loads(pickle.dumps(checkpoint)) for _ in range(2)]
    for copy in sent:
        assert copy.label == "it"
        assert copy.tensors == checkpoint.tensors
        assert every(torch.equal(copy.read(name), value) for name, value in values.items())
        copy.close()
