"""The folder of `--out`: what it accepts, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hubmerge.errors import UsageError
from hubmerge.run.output_folder import OutputFolder


@pytest.mark.parametrize("name", ["step-01", ".step-01.partial", ".step-01.outdated"])
def test_what_an_interrupted_run_leaves_is_accepted(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    OutputFolder(tmp_path, every_step=True).check()


@pytest.mark.parametrize("name", ["step-01.txt", ".step-01.other", "thesis"])
def test_other_files_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match="files that are not a merged model") as caught:
        OutputFolder(tmp_path, every_step=True).check()
    assert caught.value.context.file == str(tmp_path)


@pytest.mark.parametrize("every_step", [True, False])
def test_a_file_is_refused(tmp_path: Path, every_step: bool) -> None:
    file = tmp_path / "step-01"
    file.touch()
    with pytest.raises(UsageError, match="step-01: this is a file, expected a folder"):
        OutputFolder(file, every_step=every_step).check()


COPY = """
import resource, sys
from pathlib import Path
from hubmerge.run.output_folder import OutputFolder
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
OutputFolder(Path(sys.argv[2])).copy(Path(sys.argv[1]), 1, link=True)
"""


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk; a link needs no space, so that no weights are here."""
    model, out = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    for name in ("README.md", "tokenizer.json"):
        (model / name).write_bytes(bytes(5000))
    done = subprocess.run([sys.executable, "-c", COPY, model, out], capture_output=True, text=True)
    assert "MachineError: " in done.stderr
    assert "not enough space for a file of 5,000 bytes" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_copy_with_its_state_is_whole(tmp_path: Path) -> None:
    model, out = tmp_path / "model", OutputFolder(tmp_path / "out")
    model.mkdir()
    for name in ("README.md", "model.safetensors", "state.json"):
        (model / name).write_text(name)
    out.copy(model, 1, link=True)
    out.copy_state(model, 1)
    found = {path.relative_to(out.folder).as_posix() for path in out.folder.rglob("*") if path.is_file()}
    assert found == {"README.md", "model.safetensors", "state.json", "state/state.json"}
