"""The folder of `--out`: what it accepts, and what it refuses."""

from __future__ import annotations

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
