"""Tensors are read from safetensors files, by many threads and in memory of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hubmerge.checkpoints import SafetensorsReader
from hubmerge.errors import CheckpointError
from tests.checkpoints.files import header_bytes, random_tensors, write_file
from tests.checks import every

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_is_read_as_written_by_the_library(tmp_path: Path, dtype: torch.dtype) -> None:
    values = (torch.arange(15) % 5).reshape(3, 5).to(dtype)
    save_file({"values": values, "before": torch.ones(3, dtype=torch.uint8)}, tmp_path / "model.safetensors")
    file = SafetensorsReader(tmp_path / "model.safetensors")
    read = file.read(file.header.tensors["values"])
    assert (read.dtype, read.shape) == (dtype, values.shape)
    assert torch.equal(read.to(torch.float64), values.to(torch.float64))


def test_scalars_and_empty_tensors_are_read(tmp_path: Path) -> None:
    save_file({"one": torch.tensor(2.5), "none": torch.zeros(0, 4)}, tmp_path / "model.safetensors")
    file = SafetensorsReader(tmp_path / "model.safetensors")
    assert torch.equal(file.read(file.header.tensors["one"]), torch.tensor(2.5))
    assert file.read(file.header.tensors["none"]).shape == (0, 4)


def test_changing_a_read_tensor_leaves_the_file_unchanged(tmp_path: Path) -> None:
    write_file(tmp_path / "model.safetensors", {"w": torch.ones(4)})
    file = SafetensorsReader(tmp_path / "model.safetensors")
    info = file.header.tensors["w"]
    file.read(info).zero_()
    assert torch.equal(file.read(info), torch.ones(4))


def test_many_threads_read_equal_tensors(tmp_path: Path) -> None:
    tensors = random_tensors({f"t{number}": (number + 1, 17) for number in range(40)})
    write_file(tmp_path / "model.safetensors", tensors)
    file = SafetensorsReader(tmp_path / "model.safetensors")
    names = list(tensors) * 10
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda name: file.read(file.header.tensors[name]), names))
    assert every(torch.equal(tensor, tensors[name]) for name, tensor in zip(names, read, strict=True))


def test_a_closed_file_is_opened_again_by_the_next_read(tmp_path: Path) -> None:
    write_file(tmp_path / "model.safetensors", {"w": torch.ones(4)})
    file = SafetensorsReader(tmp_path / "model.safetensors")
    info = file.header.tensors["w"]
    file.read(info)
    file.close()
    file.close()
    assert torch.equal(file.read(info), torch.ones(4))


def test_a_file_truncated_after_opening_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_file(path, {"w": torch.ones(1000)})
    file = SafetensorsReader(path)
    with path.open("rb+") as stream:
        stream.truncate(path.stat().st_size - 100)
    with pytest.raises(CheckpointError, match=r"'w'.*100 bytes too early"):
        file.read(file.header.tensors["w"])


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.safetensors.*No such file"):
        SafetensorsReader(tmp_path / "gone.safetensors")


PEAK = """
import resource, sys, torch
from pathlib import Path
from hubmerge.checkpoints import SafetensorsReader
file = SafetensorsReader(Path(sys.argv[1]))
names = list(file.header.tensors)
file.read(file.header.tensors[names[0]])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
total = sum(float(file.read(file.header.tensors[name])[0, 0]) for name in names)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(grown * (1 if sys.platform == "darwin" else 1024))
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    count, side = 64, 1024
    one = 4 * side * side
    entries = {
        f"t{number:03d}": {
            "dtype": "F32",
            "shape": [side, side],
            "data_offsets": [number * one, (number + 1) * one],
        }
        for number in range(count)
    }
    header = header_bytes(json.dumps(entries).encode())
    path = tmp_path / "model.safetensors"
    path.write_bytes(header)
    with path.open("rb+") as stream:
        stream.truncate(len(header) + count * one)  # 256 MiB that use no disk space
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 4 * one
