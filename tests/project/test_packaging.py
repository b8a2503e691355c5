"""The package as a user installs it: a wheel in an environment of its own, and a command line that answers at once."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import hubmerge

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_both_packages_and_the_quickstart_recipe(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "merge_recipes/schema.py" in names
    assert "hubmerge/cli/main.py" in names
    assert "hubmerge/py.typed" in names
    assert "hubmerge/demo/quickstart.yaml" in names
    assert any(name.endswith("LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


def test_wheel_works_in_an_environment_of_its_own(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    answer = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    site = Path(answer.stdout.strip())
    # The dependencies are those of this environment; only hubmerge itself must come out of the wheel.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    where = subprocess.run(
        [python, "-c", "import hubmerge; print(hubmerge.__file__)"], check=True, capture_output=True, text=True, cwd="/"
    )
    assert Path(where.stdout.strip()).is_relative_to(site)
    script = environment / "bin" / "hubmerge"
    version = subprocess.run([script, "--version"], check=True, capture_output=True, text=True, cwd="/")
    assert version.stdout == f"hubmerge {hubmerge.__version__}\n"
    code = "from hubmerge.demo import quickstart_recipe; print(quickstart_recipe())"
    recipe = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, cwd="/")
    checked = subprocess.run([script, "check", recipe.stdout.strip()], capture_output=True, text=True, cwd="/")
    assert checked.returncode == 0, checked.stderr
    assert Path(recipe.stdout.strip()).is_relative_to(site)


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_need_no_heavy_import(flag: str) -> None:
    code = (
        "import sys; from hubmerge.cli.main import main\n"
        f"try: main(['{flag}'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'huggingface_hub', 'accelerate', 'numpy', 'yaml'}\n"
        "heavy.add('merge_recipes.schema')\n"
        f"heavy = (heavy | ({{'rich'}} if '{flag}' == '--version' else set())) & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr
