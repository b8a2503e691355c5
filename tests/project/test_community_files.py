"""Files for people and services around the project: citation, forms for issues, container, conda recipe."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import hubmerge
from tests.checks import every

tomllib = pytest.importorskip("tomllib")

ROOT = Path(__file__).resolve().parents[2]
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"matplotlib": "matplotlib-base", "torch": "pytorch"}


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("citation-file-format", [ROOT / "CITATION.cff"]),
        ("github-issue-forms", FORMS),
        ("github-issue-config", [ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml"]),
    ],
)
def test_files_follow_their_schemas(schema: str, files: list[Path]) -> None:
    tool = Path(sys.executable).parent / "check-jsonschema"
    done = subprocess.run([tool, "--builtin-schema", f"vendor.{schema}", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_version_everywhere() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == hubmerge.__version__
    assert conda_recipe()["context"]["version"] == hubmerge.__version__
    assert PROJECT["version"] == hubmerge.__version__


def conda_recipe() -> Any:
    return yaml.safe_load((ROOT / "packaging" / "conda" / "recipe.yaml").read_text())


def test_the_conda_recipe_asks_for_what_the_package_asks_for() -> None:
    expected = set()
    for requirement in PROJECT["dependencies"]:
        name = re.split(r"[<>=]", requirement)[0]
        expected.add(f"{CONDA_NAMES.get(name, name)} {requirement.removeprefix(name)}")
    asked = {line for line in conda_recipe()["requirements"]["run"] if not line.startswith("python ")}
    assert asked == expected


def test_the_container_gets_what_the_package_is_built_from() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert {name for line in copied for name in line.split()} == allowed
    assert every((ROOT / name).exists() for name in allowed)


def test_the_image_takes_torch_from_the_index_that_is_named() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert "--build-arg TORCH_INDEX=https://HOST/whl/cpu" in text
    assert re.search(r'^RUN .*\$\{TORCH_INDEX:\+--extra-index-url "\$TORCH_INDEX"\} torch$', text, re.MULTILINE)


def test_the_release_publishes_the_files_that_were_tested() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    steps = workflow["jobs"]["publish"]["steps"]
    assert workflow["jobs"]["publish"]["needs"] == "build"
    assert not [step for step in steps if "run" in step]
    assert {"actions/download-artifact", "pypa/gh-action-pypi-publish"} <= {
        step["uses"].split("@")[0] for step in steps
    }
    assert "secrets." not in (ROOT / ".github" / "workflows" / "release.yml").read_text()


def test_every_tested_python_is_declared() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())["jobs"]
    declared = {text.rsplit(" ", 1)[1] for text in PROJECT["classifiers"] if "Python :: 3." in text}
    assert set(jobs["test"]["strategy"]["matrix"]["python"]) == declared
