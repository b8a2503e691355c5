"""The notebook runs: its cells in this process with untrained models, and as a notebook with trained ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.docs.blocks import ROOT

NOTEBOOK = ROOT / "examples" / "living_merge.ipynb"


def cells() -> list[Any]:
    return [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]


def test_the_notebook_is_valid_and_has_no_output() -> None:
    nbformat.validate(nbformat.read(NOTEBOOK, as_version=4))
    assert len(cells()) > 3
    for cell in cells():
        assert cell.outputs == []
        assert cell.execution_count is None


def test_its_cells_run_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All cells but those that start and stop the Hub: this process has one."""
    monkeypatch.setenv("HUBMERGE_NOTEBOOK_UNTRAINED", "1")
    space: dict[str, Any] = {"__name__": "__main__", "folder": tmp_path, "os": os, "Path": Path}
    for number, cell in enumerate(cells()):
        if "hub" not in cell.metadata.get("tags", ()):
            exec(compile(cell.source, f"cell {number}", "exec"), space)  # noqa: S102 - our own code
    assert space["verdict"].verified
    output = capsys.readouterr().out
    assert "3 letters {'shapes'" in output
    assert "takes out dots" in output


@pytest.mark.slow
def test_the_notebook_runs_with_trained_models(tmp_path: Path) -> None:
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    hidden = {"HF_ENDPOINT", "HF_TOKEN", "HF_HOME", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    client = NotebookClient(notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute(env=environment)
    texts = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("takes out dots" in text for text in texts)
    assert not [
        output for cell in notebook.cells for output in cell.get("outputs", ()) if output.output_type == "error"
    ]
