"""Safetensors files are written in any order by any thread, and appear whole or not at all."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hubmerge.checkpoints import SafetensorsWriter, TensorSpec
from tests.checkpoints.files import names_in, random_tensors, specs_of
from tests.checks import every

MIXED = {
    "flags": torch.tensor([True, False, True]),
    "half": torch.arange(5).to(torch.float16),
    "brain": torch.arange(3).to(torch.bfloat16),
    "scalar": torch.tensor(2.5),
    "none": torch.zeros(0, 3),
    "double": torch.arange(6, dtype=torch.float64).reshape(2, 3),
    "count": torch.tensor([7]),
    "turned": torch.arange(12.0).reshape(3, 4).t(),
}


def test_the_library_reads_files_written_in_any_order_by_many_threads(tmp_path: Path) -> None:
    tensors = MIXED | random_tensors({f"t{number}": (number + 1, 9) for number in range(50)})
    names = list(tensors)
    random.Random(1).shuffle(names)
    path = tmp_path / "out" / "model.safetensors"
    with SafetensorsWriter(path, specs_of(tensors)) as writer:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: writer.write(name, tensors[name]), names))
        written = writer.commit()
    read = load_file(path)
    assert set(read) == set(tensors)
    assert every(torch.equal(read[name], tensors[name]) and read[name].dtype == tensors[name].dtype for name in read)
    assert path.stat().st_size == written.nbytes
    assert names_in(path.parent) == ["model.safetensors"]


def test_size_and_alignment_are_those_of_the_library(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    with SafetensorsWriter(ours, specs_of(MIXED)) as writer:
        for name, tensor in MIXED.items():
            writer.write(name, tensor)
        writer.commit()
    save_file({name: tensor.contiguous() for name, tensor in MIXED.items()}, theirs, {"format": "pt"})
    assert ours.stat().st_size == theirs.stat().st_size
    assert int.from_bytes(ours.read_bytes()[:8], "little") % 8 == 0
    with safe_open(ours, "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_order_of_writing_does_not_change_the_bytes(tmp_path: Path) -> None:
    contents = []
    for order in (list(MIXED), list(reversed(MIXED))):
        path = tmp_path / "model.safetensors"
        with SafetensorsWriter(path, specs_of(MIXED)) as writer:
            for name in order:
                writer.write(name, MIXED[name])
            writer.commit()
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


def test_digests_are_the_sha256_of_the_values(tmp_path: Path) -> None:
    values = torch.arange(4, dtype=torch.int32)
    with SafetensorsWriter(tmp_path / "a.safetensors", specs_of({"v": values})) as writer:
        writer.write("v", values)
        assert writer.commit().digests == {"v": hashlib.sha256(values.numpy().tobytes()).hexdigest()}
    with SafetensorsWriter(tmp_path / "b.safetensors", specs_of({"v": values}), digests=False) as writer:
        writer.write("v", values)
        assert writer.commit().digests == {}


@pytest.mark.parametrize("pieces", [1, 3, 16])
def test_raw_bytes_are_written_in_pieces(tmp_path: Path, pieces: int) -> None:
    values = torch.arange(16, dtype=torch.uint8)
    raw = values.numpy().tobytes()
    size = len(raw) // pieces
    with SafetensorsWriter(tmp_path / "a.safetensors", specs_of({"v": values})) as writer:
        writer.write_raw("v", (raw[begin : begin + size] for begin in range(0, len(raw), size)))
        if pieces == 3:
            assert len(raw) % size
        writer.commit()
    assert torch.equal(load_file(tmp_path / "a.safetensors")["v"], values)


def test_raw_pieces_of_wider_items_are_counted_in_bytes(tmp_path: Path) -> None:
    values = torch.arange(4.0)
    with SafetensorsWriter(tmp_path / "a.safetensors", specs_of({"v": values})) as writer:
        writer.write_raw("v", [values.numpy().data])
        writer.commit()
    assert torch.equal(load_file(tmp_path / "a.safetensors")["v"], values)


@pytest.mark.parametrize(
    ("name", "tensor", "expected"),
    [
        ("v", torch.zeros(3), "expected"),
        ("v", torch.zeros(2, dtype=torch.float64), "expected"),
        ("w", torch.zeros(2), "not one of its tensors"),
    ],
)
def test_a_tensor_that_is_not_in_the_specs_is_refused(
    tmp_path: Path, name: str, tensor: torch.Tensor, expected: str
) -> None:
    with SafetensorsWriter(tmp_path / "a.safetensors", [TensorSpec("v", torch.float32, (2,))]) as writer:
        with pytest.raises(ValueError, match=expected):
            writer.write(name, tensor)
        with pytest.raises(ValueError, match="'v'"):
            writer.commit()


@pytest.mark.parametrize("raw", [bytes(7), bytes(9)])
def test_too_few_or_too_many_bytes_are_refused(tmp_path: Path, raw: bytes) -> None:
    with SafetensorsWriter(tmp_path / "a.safetensors", [TensorSpec("v", torch.float32, (2,))]) as writer:
        with pytest.raises(ValueError, match="expected"):
            writer.write_raw("v", raw)
        with pytest.raises(ValueError, match="not written"):
            writer.commit()
    assert names_in(tmp_path) == []


def test_writing_a_tensor_twice_is_refused(tmp_path: Path) -> None:
    with SafetensorsWriter(tmp_path / "a.safetensors", [TensorSpec("v", torch.float32, (2,))]) as writer:
        writer.write("v", torch.zeros(2))
        with pytest.raises(ValueError, match="twice"):
            writer.write("v", torch.ones(2))


def test_two_specs_of_one_name_are_refused(tmp_path: Path) -> None:
    spec = TensorSpec("v", torch.float32, (2,))
    with pytest.raises(ValueError, match="taken"):
        SafetensorsWriter(tmp_path / "a.safetensors", [spec, spec])


def write_one_tensor_and_fail(path: Path) -> None:
    with SafetensorsWriter(path, specs_of(MIXED)) as writer:
        writer.write("half", MIXED["half"])
        raise RuntimeError("interrupted")


def test_an_error_during_writing_leaves_the_earlier_file_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"earlier")
    with pytest.raises(RuntimeError, match="interrupted"):
        write_one_tensor_and_fail(path)
    assert path.read_bytes() == b"earlier"
    assert names_in(tmp_path) == ["model.safetensors"]


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from hubmerge.checkpoints import SafetensorsWriter, TensorSpec
specs = [TensorSpec(name, torch.float32, (1000,)) for name in "ab"]
writer = SafetensorsWriter(Path(sys.argv[1]) / "model.safetensors", specs)
writer.write("a", torch.ones(1000))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_no_file_under_the_final_name(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -9
    assert not (tmp_path / "model.safetensors").exists()
    specs = [TensorSpec(name, torch.float32, (1000,)) for name in "ab"]
    with SafetensorsWriter(tmp_path / "model.safetensors", specs) as writer:
        writer.write("a", torch.zeros(1000))
        writer.write("b", torch.zeros(1000))
        writer.commit()
    assert names_in(tmp_path) == ["model.safetensors"]


REFUSED = """
import os, resource, sys, torch
from pathlib import Path
from hubmerge.checkpoints import SafetensorsWriter, TensorSpec
from hubmerge.errors import MachineError
{before}
try:
    SafetensorsWriter(Path(sys.argv[1]) / "model.safetensors", [TensorSpec("v", torch.float32, (1_000_000,))])
except MachineError as error:
    print(error.message, os.listdir(sys.argv[1]))
"""


def refused(before: str, folder: Path, *wrapper: str) -> subprocess.CompletedProcess[str]:
    code = REFUSED.replace("{before}", before)
    return subprocess.run(
        [*wrapper, sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
    )


def test_a_file_above_the_size_limit_of_the_process_is_refused(tmp_path: Path) -> None:
    done = refused("resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not enough space for a file of 4,000" in done.stdout
    assert str(tmp_path) in done.stdout
    assert done.stdout.endswith(" []\n")


def test_a_full_disk_is_noticed_at_once(tmp_path: Path) -> None:
    inside = ["unshare", "--mount", "--map-root-user"]
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run([*inside, *mount], check=False).returncode:
        pytest.skip("this machine lets no test mount a small disk")
    before = f"import subprocess; subprocess.run({mount!r}, check=True)"
    done = refused(before, tmp_path, *inside)
    assert done.returncode == 0, done.stderr
    assert "not enough space for a file of 4,000" in done.stdout
    assert "No space left" in done.stdout
    assert done.stdout.endswith(" []\n")


def test_a_folder_without_write_permission_is_refused() -> None:
    # Root may write anywhere, so the process steps down to a user who may not.
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o555)
        done = refused("if os.geteuid() == 0: os.seteuid(65534)", folder)
        assert done.returncode == 0, done.stderr
        assert "no permission to write" in done.stdout
        assert str(folder) in done.stdout
        assert done.stdout.endswith(" []\n")
    finally:
        folder.chmod(0o755)
        folder.rmdir()
