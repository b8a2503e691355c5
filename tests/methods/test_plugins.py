"""Merge methods of other distributions: the example in tests/examples/plugin, and faulty ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hubmerge.errors import HubmergeError, MachineError
from hubmerge.methods import (
    Absorbed,
    FaultyMethod,
    InstalledMethod,
    Method,
    TensorInput,
    find_method,
    given_method,
    installed_methods,
    method_named,
    method_names,
)
from hubmerge.support.plugins import installed_plugins

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "plugin"
RECIPE = "merge_method: plugin_average\nbase_model: me/base\nmodels:\n  - model: me/first\nparameters: {newest: 0.25}\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example installed as pip installs it."""
    folder = tmp_path_factory.mktemp("site")
    source = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("source") / "plugin")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*install, "--target", str(folder), str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def hubmerge(site: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH", ""))))
    command = [sys.executable, "-m", "hubmerge", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_recipe_can_name_the_method_of_another_distribution(site: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    done = hubmerge(site, "check", recipe)
    assert done.returncode == 0, done.stdout + done.stderr
    recipe.write_text(RECIPE.replace("0.25", "2.5"))
    done = hubmerge(site, "check", recipe)
    assert done.returncode == 2
    assert f"{recipe}:5:22: parameters.newest" in done.stderr


def test_without_the_distribution_the_method_is_unknown(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    done = hubmerge(tmp_path, "check", recipe)
    assert done.returncode == 2
    assert "plugin_average" in done.stderr


def test_the_schema_describes_the_method(site: Path) -> None:
    done = hubmerge(site, "schema")
    assert done.returncode == 0, done.stderr
    assert "plugin_average" in json.dumps(json.loads(done.stdout))


def distribution(folder: Path, name: str, points: str, code: str = "") -> None:
    """Write an installed distribution with these entry points, and a module of its name."""
    info = folder / f"{name}-0.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.9\n")
    (info / "entry_points.txt").write_text(f"[hubmerge.methods]\n{points}\n")
    (folder / f"{name}.py").write_text(code)


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "faulty"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    installed_plugins.cache_clear()
    yield folder  # type: ignore[misc]
    installed_plugins.cache_clear()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ValueError('broken on import')", "cannot be imported: ValueError: broken on import"),
        ("method = 3", "is not a hubmerge.Method"),
        ("", "cannot be imported: AttributeError"),
    ],
)
def test_a_faulty_plugin_is_reported_when_it_is_named(
    faulty: Path, code: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"faulty_{abs(hash(code)) % 10**8}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    distribution(faulty, name, f"mine = {name}:method", code)
    assert "mine" in method_names()
    assert method_named("opcm").name == "opcm"
    with pytest.raises(MachineError, match=f"{name} 0.9") as caught:
        find_method("mine")
    assert message in caught.value.message
    (listed,) = [one for one in installed_methods() if isinstance(one, FaultyMethod)]
    assert (listed.name, listed.distribution, listed.version) == ("mine", name, "0.9")
    assert message in listed.fault


def test_a_plugin_cannot_replace_a_method_of_hubmerge(faulty: Path) -> None:
    distribution(faulty, "impostor", "opcm = impostor:method", "method = 3")
    assert find_method("opcm") == InstalledMethod(method_named("opcm"))
    assert find_method("opcm").distribution is None
    (listed,) = [one for one in installed_methods() if isinstance(one, FaultyMethod)]
    assert "its name is that of a method of hubmerge" in listed.fault


def test_two_plugins_of_one_name_are_refused(faulty: Path) -> None:
    distribution(faulty, "first_one", "mine = first_one:method")
    distribution(faulty, "second_one", "mine = second_one:method")
    with pytest.raises(MachineError, match=r"first_one 0\.9 and second_one 0\.9"):
        find_method("mine")


class Own(Method):
    """The newest task vector."""

    name, source, summary = "own", "by definition", "the newest task vector"

    def absorb(self, tensor: TensorInput[object]) -> Absorbed:
        return Absorbed(tensor.task_vector)


def test_a_method_object_can_be_named_while_it_is_given() -> None:
    with given_method(Own()) as name:
        assert isinstance(method_named(name), Own)
    with pytest.raises(HubmergeError, match="unknown method 'own'"):
        method_named("own")


def test_a_method_object_cannot_take_a_name_that_is_taken() -> None:
    taken = Own()
    taken.name = "opcm"
    with pytest.raises(HubmergeError, match="taken by an installed method"), given_method(taken):
        pass
