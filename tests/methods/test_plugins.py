"""Merge methods of other distributions: the example in tests/examples/plugin, and faulty ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hubmerge import RecipeError, load
from hubmerge.errors import HubmergeError, MachineError
from hubmerge.methods import (
    Absorbed,
    FaultyMethod,
    InstalledMethod,
    JointMethod,
    Method,
    TensorInput,
    find_method,
    given_method,
    installed_methods,
    is_joint,
    method_named,
    method_names,
)
from tests.plugins import distribution, faulty, hubmerge, site

__all__ = ["faulty", "site"]  # fixtures

RECIPE = "merge_method: plugin_average\nbase_model: me/base\nmodels:\n  - model: me/first\nparameters: {newest: 0.25}\n"


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
    distribution(faulty, name, "hubmerge.methods", f"mine = {name}:method", code)
    assert "mine" in method_names()
    assert method_named("opcm").name == "opcm"
    with pytest.raises(MachineError, match=f"{name} 0.9") as caught:
        find_method("mine")
    assert message in caught.value.message
    (listed,) = [one for one in installed_methods() if isinstance(one, FaultyMethod)]
    assert (listed.name, listed.distribution, listed.version) == ("mine", name, "0.9")
    assert message in listed.fault


def test_a_plugin_cannot_replace_a_method_of_hubmerge(faulty: Path) -> None:
    distribution(faulty, "impostor", "hubmerge.methods", "opcm = impostor:method", "method = 3")
    assert find_method("opcm") == InstalledMethod(method_named("opcm"))
    assert find_method("opcm").distribution is None
    (listed,) = [one for one in installed_methods() if isinstance(one, FaultyMethod)]
    assert "its name is that of a method of hubmerge" in listed.fault


def test_two_plugins_of_one_name_are_refused(faulty: Path) -> None:
    distribution(faulty, "first_one", "hubmerge.methods", "mine = first_one:method")
    distribution(faulty, "second_one", "hubmerge.methods", "mine = second_one:method")
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


JOINT = """
from hubmerge.methods import JointMethod

class Mine(JointMethod):
    name, source, summary = "mine", "by definition", "the first model"
    base = "model"
    def merge(self, base, tensors, parameters):
        return tensors[0]

method = Mine
"""


def test_a_plugin_can_be_a_joint_method(faulty: Path) -> None:
    distribution(faulty, "joint_one", "hubmerge.methods", "mine = joint_one:method", JOINT)
    keys = {"merge_method": "mine", "base_model": "me/base", "models": [{"model": "me/base"}, {"model": "me/a"}]}
    recipe = load({**keys, "form": "joint"}).recipe
    assert is_joint(recipe)
    found = find_method("mine")
    assert isinstance(found.method, JointMethod)
    assert found.distribution == "joint_one"
    with pytest.raises(RecipeError, match="this is the base model"):
        load(keys)
