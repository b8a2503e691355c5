"""Installed plug-ins for tests: the example in tests/examples/plugin, and faulty ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubmerge.support.plugins import installed_plugins
from tests.shared import make_once

EXAMPLE = Path(__file__).resolve().parent / "examples" / "plugin"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the example as pip installs it, and return the folder."""
    source = tmp_path_factory.mktemp("source") / "plugin"

    def install(folder: Path) -> None:
        shutil.copytree(EXAMPLE, source)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
        command += ["--target", str(folder), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return make_once(tmp_path_factory, "plugin", install)


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder on the import path for distributions of this test."""
    folder = tmp_path / "faulty"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    installed_plugins.cache_clear()
    yield folder
    installed_plugins.cache_clear()


def hubmerge(site: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line with a folder of installed distributions on the import path."""
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH", ""))))
    command = [sys.executable, "-m", "hubmerge", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def distribution(folder: Path, name: str, group: str, points: str, code: str = "") -> None:
    """Write an installed distribution with entry points of a group, and a module of its name."""
    info = folder / f"{name}-0.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.9\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{points}\n")
    (folder / f"{name}.py").write_text(code)
